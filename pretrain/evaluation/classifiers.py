"""What a classifier is measured on, and the evaluation of one from its file (`--eval`)."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpoints.classifier_weights import Classifier, check_file_classes, load_classifier
from pretrain.common.devices import autocast_of, default_amp
from pretrain.common.distributed import World
from pretrain.common.files import save_json
from pretrain.common.seeding import seed_everything
from pretrain.data.labelled import LabelledSamples, evaluation_samples, is_video, open_split
from pretrain.data.labels import class_names
from pretrain.data.samplers import eval_loader
from pretrain.evaluation.accuracy import accuracy_line, measure_accuracy
from pretrain.evaluation.views import ViewAverage
from pretrain.models import ConvViT, VideoConvViT, build_model

__all__ = ["describe", "evaluate_classifier_file", "held_out_images", "make_classifier"]

logger = logging.getLogger(__name__)


def make_classifier(args: argparse.Namespace, num_classes: int) -> Classifier:
    """The classifier that the arguments describe, with new weights."""
    own = ("num_frames", "tubelet_size", "conv_frames", "positions") if is_video(args) else ("global_pool",)
    model = build_model(
        args.model,
        img_size=args.input_size,
        in_chans=args.in_chans,
        patch_size=args.patch_size,
        mlp_ratio=args.mlp_ratio,
        num_classes=num_classes,
        drop_path_rate=getattr(args, "drop_path", 0.0),
        act_checkpoint=args.act_checkpoint,
        **{name: getattr(args, name) for name in own},
    )
    assert isinstance(model, ConvViT | VideoConvViT)
    return model


def held_out_images(args: argparse.Namespace, clips: int = 1, crops: int = 1) -> LabelledSamples:
    """The validation split as it is evaluated; arguments as of :func:`~pretrain.data.labelled.evaluation_samples`."""
    return evaluation_samples(args, open_split(args, args.val_split), clips, crops)


def describe(args: argparse.Namespace, command: str, images: int, classes: int) -> dict[str, Any]:
    """What a result was measured on, for its file."""
    names = ["model", "input_size", "global_pool", "data_path", "label_fraction", "init_weights", "seed"]
    names += ["num_frames", "tubelet_size", "conv_frames", "sampling", "frame_step"] if is_video(args) else ["decoder"]
    facts = {name: getattr(args, name) for name in names}
    return {"command": command, **facts, "images": images, "classes": classes}


def evaluate_classifier_file(
    args: argparse.Namespace, world: World, device: torch.device, add_head: Callable[[Classifier], object] | None = None
) -> dict[str, float]:
    """Evaluates a classifier's file, prints its accuracy and writes `eval.json`.

    Videos are seen in `--test_clips` x `--test_crops` views, whose softmax scores are averaged.

    Args:
        add_head: puts another head on the model before its weights are loaded.

    Raises:
        FileNotFoundError, UserError: data or file cannot be used, or do not fit each other.
    """
    seed_everything(args.seed)
    path = args.init_weights or args.resume
    views = (args.test_clips, args.test_crops) if is_video(args) else (1, 1)
    images = held_out_images(args, *views)
    classes = class_names(images.reader)
    check_file_classes(path, classes, f"{args.data_path} ({args.val_split})")
    model = make_classifier(args, len(classes))
    if add_head:
        add_head(model)
    load_classifier(model, path)
    model.to(device).eval()
    autocast = autocast_of(args.amp or default_amp(device), device)
    loader = eval_loader(images, args.batch_size, args.num_workers, world)
    results = measure_accuracy(ViewAverage(model), loader, world, device, autocast)
    logger.info("%s", accuracy_line(results))
    if world.is_main:
        output_dir = Path(args.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        seen = {"clips": views[0], "crops": views[1]} if is_video(args) else {}
        save_json(
            describe(args, "eval", len(images), len(classes)) | {"weights": path, **seen, **results},
            output_dir / "eval.json",
        )
    return results
