"""Weighted nearest neighbours, as in DINO (arXiv:2104.14294, and before it Wu et al., 2018, arXiv:1805.01978)."""

import argparse
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from pretrain.checkpoints.classifier_weights import Classifier, load_trunk
from pretrain.common.devices import autocast_of, default_amp
from pretrain.common.distributed import World, in_world
from pretrain.common.errors import UserError
from pretrain.common.files import save_json
from pretrain.common.seeding import seed_everything
from pretrain.data.labelled import LabelledSamples, evaluation_samples, open_split
from pretrain.data.labels import check_same_classes, class_names, take_fraction
from pretrain.evaluation.accuracy import accuracy_line, count_correct
from pretrain.evaluation.classifiers import describe, held_out_images, make_classifier
from pretrain.evaluation.features import check_enough_images, extract_features

__all__ = [
    "NeighbourImages",
    "classify_by_neighbours",
    "knn_accuracy",
    "measure_neighbours",
    "open_neighbour_images",
    "run",
]

logger = logging.getLogger(__name__)

# Similarities held at a time: 256 MB of them.
CHUNK_SIMILARITIES = 2**26


def run(args: argparse.Namespace) -> None:
    """Classifies in this process, one of those torchrun started or the only one.

    Raises:
        FileNotFoundError, UserError: arguments, data or files that cannot be used.
    """
    in_world(args.device, lambda world, device: classify_by_neighbours(args, world, device))


def classify_by_neighbours(args: argparse.Namespace, world: World, device: torch.device) -> dict[str, float]:
    """Computes the features of both splits, classifies the second by the first, and writes `knn.json`.

    Args:
        args: those of :func:`pretrain.training.classification_args.parse_knn_args`.

    Raises:
        FileNotFoundError, UserError: data or weights that cannot be used.
    """
    seed_everything(args.seed)
    images = open_neighbour_images(args, world)
    model = _feature_extractor(args, device)
    autocast = autocast_of(args.amp or default_amp(device), device)
    logger.info("Features of %d training and %d validation images.", len(images.train), len(images.test))
    results = measure_neighbours(model, images, args, world, device, autocast)
    logger.info("%s", accuracy_line(results))
    if world.is_main:
        output_dir = Path(args.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        facts = describe(args, "knn", len(images.test), len(images.classes))
        facts |= {"k": args.k, "temperature": args.temperature}
        save_json(facts | {"training_images": len(images.train), **results}, output_dir / "knn.json")
    return results


@dataclass(frozen=True)
class NeighbourImages:
    """Labelled images of both splits, without randomness.

    Attributes:
        train: the neighbours.
        test: the images to classify.
        classes: their names, in order.
    """

    train: LabelledSamples
    test: LabelledSamples
    classes: list[str]


def open_neighbour_images(args: argparse.Namespace, world: World) -> NeighbourImages:
    """Opens both splits and checks that they can be used.

    Args:
        args: those of :func:`pretrain.training.classification_args.parse_knn_args`.

    Raises:
        FileNotFoundError, UserError: data that cannot be used, or too few images for the neighbours or the processes.
    """
    test = held_out_images(args)
    reader = open_split(args, args.train_split)
    classes = class_names(reader)
    check_same_classes(classes, class_names(test.reader), args.data_path)
    if args.label_fraction != 1:
        reader = take_fraction(reader, args.label_fraction, args.seed)
    train = evaluation_samples(args, reader)
    if args.k > len(train):
        raise UserError(f"--k {args.k} neighbours cannot be found among {len(train)} training images.")
    for images in (train, test):
        check_enough_images(images, world)
    return NeighbourImages(train, test, classes)


def measure_neighbours(
    model: Classifier,
    images: NeighbourImages,
    args: argparse.Namespace,
    world: World,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, float]:
    """Computes the features of both splits and classifies the second by the first.

    Args:
        args: how, as for :func:`open_neighbour_images`.

    Returns:
        `acc1` and `acc5` in percent, the same in every process.
    """

    def features_of(images: LabelledSamples) -> tuple[torch.Tensor, torch.Tensor]:
        features, labels = extract_features(model, images, args.batch_size, args.num_workers, world, device, autocast)
        return features.to(device), labels.to(device)

    return knn_accuracy(
        features_of(images.train), features_of(images.test), len(images.classes), args.k, args.temperature
    )


def _feature_extractor(args: argparse.Namespace, device: torch.device) -> Classifier:
    model = make_classifier(args, 0)
    if args.init_weights:
        load_trunk(model, args.init_weights)
    else:
        logger.warning("Without --init_weights the features are those of random weights.")
    return model.to(device)


def knn_accuracy(
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, float]:
    """Accuracy of a vote among the k most similar training images, weighted by exp(cosine similarity / temperature).

    Args:
        train: features `(N, C)` and labels `(N,)`.
        test: the same of the images to classify.

    Returns:
        `acc1` and `acc5` in percent.

    Raises:
        UserError: there are fewer than k training images.
    """
    (train_features, train_labels), (test_features, test_labels) = train, test
    if k > len(train_features):
        raise UserError(f"--k {k} neighbours cannot be found among {len(train_features)} training images.")
    train_features = F.normalize(train_features, dim=1)
    chunk = max(1, CHUNK_SIMILARITIES // len(train_features))
    right = torch.zeros(2, dtype=torch.int64, device=test_labels.device)
    for features, labels in zip(test_features.split(chunk), test_labels.split(chunk), strict=True):
        similarity, neighbours = (F.normalize(features, dim=1) @ train_features.T).topk(k, dim=1)
        # Relative to the most similar one, as a low temperature would overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(labels), num_classes).scatter_add_(1, train_labels[neighbours], weights)
        right += torch.stack(count_correct(votes.topk(min(5, num_classes)).indices, labels))
    acc1, acc5 = (100 * right / len(test_labels)).tolist()
    return {"acc1": acc1, "acc5": acc5}
