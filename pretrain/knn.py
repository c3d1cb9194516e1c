"""`python -m pretrain.knn`: weighted nearest neighbours on frozen features, as in DINO (arXiv:2104.14294, and before it
Wu et al., 2018, arXiv:1805.01978)."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from pretrain.checkpoints.classifier_weights import load_trunk
from pretrain.common.commands import run_command
from pretrain.common.distributed import World, in_world
from pretrain.common.errors import UserError
from pretrain.common.files import save_json
from pretrain.data.labels import LabelledImages, check_same_classes, class_names, open_labelled, take_fraction
from pretrain.data.transforms import image_mode
from pretrain.evaluation.accuracy import accuracy_line
from pretrain.evaluation.features import extract_features
from pretrain.evaluation.neighbours import knn_accuracy
from pretrain.training.classification import describe, held_out_images, make_classifier
from pretrain.training.classification_args import parse_knn_args
from pretrain.training.precision import Precision, default_amp
from pretrain.training.state import seed_everything

__all__ = ["run"]

logger = logging.getLogger(__name__)


def classify(args: argparse.Namespace, world: World, device: torch.device) -> dict[str, float]:
    """Computes the features of both splits, classifies the second by the first, and writes `knn.json`.

    Raises:
        FileNotFoundError, UserError: data or weights that cannot be used.
    """
    seed_everything(args.seed)
    test = held_out_images(args)
    reader = open_labelled(args.data_path, args.train_split)
    classes = class_names(reader)
    check_same_classes(classes, class_names(test.reader), args.data_path)
    if args.label_fraction != 1:
        reader = take_fraction(reader, args.label_fraction, args.seed)
    train = LabelledImages(reader, test.transform, args.seed, image_mode(args.in_chans), replace=False)
    if args.k > len(train):
        raise UserError(f"--k {args.k} neighbours cannot be found among {len(train)} training images.")
    model = make_classifier(args, 0)
    if args.init_weights:
        load_trunk(model, args.init_weights)
    else:
        logger.warning("Without --init_weights the features are those of random weights.")
    model.to(device)
    autocast = Precision(args.amp or default_amp(device), device, model).autocast
    splits = []
    for name, images in (("training", train), ("validation", test)):
        logger.info("Features of %d %s images.", len(images), name)
        features = extract_features(model, images, args.batch_size, args.num_workers, world, device, autocast)
        splits.append(tuple(t.to(device) for t in features))
    results = knn_accuracy(*splits, len(classes), args.k, args.temperature)
    logger.info("%s", accuracy_line(results))
    if world.is_main:
        output_dir = Path(args.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        facts = describe(args, "knn", len(test), len(classes)) | {"k": args.k, "temperature": args.temperature}
        save_json(facts | {"training_images": len(train), **results}, output_dir / "knn.json")
    return results


def run(args: argparse.Namespace) -> None:
    """Classifies in this process, one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
    """
    in_world(args.device, lambda world, device: classify(args, world, device))


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(parse_knn_args(argv)))


if __name__ == "__main__":
    main()
