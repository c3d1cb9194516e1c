"""Nearest neighbours on the encoder in the course of pretraining: `--probe` and the options that begin like it."""

import argparse
import logging
import re

import torch

from pretrain.checkpoints.classifier_weights import load_trunk
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.common.seeding import seeded_everywhere
from pretrain.common.sharding import full_weights
from pretrain.data.labelled import is_video
from pretrain.evaluation.classifiers import make_classifier
from pretrain.evaluation.neighbours import NeighbourImages, measure_neighbours, open_neighbour_images
from pretrain.models import MaskedAutoencoderConvViT, VideoConvMAE
from pretrain.models.autoencoder import encoder_weights
from pretrain.names import classifier_of
from pretrain.training.args import PROBE_DEFAULTS
from pretrain.training.classification_args import parse_knn_args
from pretrain.training.precision import Precision

__all__ = ["NeighbourProbe"]


class NeighbourProbe:
    """Measures what `python -m pretrain.knn` would measure on the `encoder.pth` of the moment.

    Training takes the same course with it and without: the features come from a model of its own, and random generators
    stay as they were.

    Args:
        args: of the run, with `probe` and what belongs to it.
        model: the autoencoder that is trained.

    Raises:
        FileNotFoundError, UserError: options or labelled images that cannot be used.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        model: MaskedAutoencoderConvViT | VideoConvMAE,
        world: World,
        device: torch.device,
        precision: Precision,
    ):
        self.run_args, self.model, self.world, self.device, self.precision = args, model, world, device, precision
        self.args, self.images = _open(args, world)
        with seeded_everywhere(args.seed):
            self.extractor = make_classifier(self.args, 0)
        self.extractor.to(device)

    def evaluate(self, epoch: int) -> dict[str, float]:
        """Measures in every `--probe_epochs`-th epoch and the last one; in other epochs there is nothing.

        Args:
            epoch: epochs done.
        """
        if epoch % self.run_args.probe_epochs and epoch < self.run_args.epochs:
            return {}
        return self.measure()

    def measure(self) -> dict[str, float]:
        """`knn_acc1` and `knn_acc5` in percent of the encoder as it is."""
        with seeded_everywhere(self.args.seed):
            weights = {name: t.cpu() for name, t in encoder_weights(full_weights(self.model)).items()}
            load_trunk(self.extractor, {"model": weights, "args": vars(self.run_args)}, logging.DEBUG)
            results = measure_neighbours(
                self.extractor, self.images, self.args, self.world, self.device, self.precision.autocast
            )
        return {f"knn_{name}": value for name, value in results.items()}


def _open(args: argparse.Namespace, world: World) -> tuple[argparse.Namespace, NeighbourImages]:
    """The arguments of `python -m pretrain.knn` that the run's stand for, and the images."""
    try:
        options = _knn_args(args)
        return options, open_neighbour_images(options, world)
    except (UserError, FileNotFoundError) as e:
        # The command's options are named as they are here.
        message = re.sub(r"--(?=(k|label_fraction|train_split|val_split)\b)", "--probe_", str(e))
        raise type(e)(f"--probe {args.probe}: {message}") from e


def _knn_args(args: argparse.Namespace) -> argparse.Namespace:
    """Those of the run, those that begin with `probe_` without it, and the command's defaults."""
    flags = {name: getattr(args, name) for name in ("in_chans", "batch_size", "num_workers", "seed", "output_dir")}
    flags |= {name.removeprefix("probe_"): getattr(args, name) for name in PROBE_DEFAULTS}
    classifier = classifier_of(args.model)
    flags |= {"model": classifier, "data_path": args.probe}
    if is_video(args):
        clips = ("recipe", "num_frames", "tubelet_size", "conv_frames", "sampling", "frame_step", "video_root")
        flags |= {name: getattr(args, name) for name in clips} | {"model": f"video{classifier}"}
    else:
        flags["decoder"] = args.decoder
    words = [f"--{name}={value}" for name, value in flags.items()]
    for name in ("input_size", "patch_size", "mlp_ratio"):
        words += [f"--{name}", *map(str, getattr(args, name))]
    return parse_knn_args(words)
