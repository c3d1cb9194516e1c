"""Features of a frozen classifier, computed once by all processes together."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from pretrain.checkpoints.classifier_weights import Classifier
from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.data.datasets import EpochDataset
from pretrain.data.labelled import LabelledSamples
from pretrain.data.labels import LabelledSample
from pretrain.data.pixels import images_on
from pretrain.data.samplers import eval_loader

__all__ = ["CachedFeatures", "check_enough_images", "extract_features", "pooled_features"]


class CachedFeatures(EpochDataset):
    """Features in place of images, with the same indices; call :meth:`fill` before reading any.

    Args:
        images: whose features they are.
    """

    def __init__(self, images: LabelledSamples):
        self.images, self.seed, self.noun = images, images.seed, images.noun
        self.readable = torch.empty(0, dtype=torch.int64)
        self.features: torch.Tensor | None = None
        self.labels: torch.Tensor | None = None

    def fill(self, extract: Callable[[LabelledSamples], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Computes features `(N, C)` and labels `(N,)` of the images, and keeps them."""
        self.features, self.labels = extract(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> LabelledSample:
        assert self.features is not None and self.labels is not None, "features are used before they are computed"
        index = key[1]
        return LabelledSample(self.features[index], self.labels[index], self.readable)


def pooled_features(model: Classifier, images: torch.Tensor) -> torch.Tensor:
    """What the head sees of images `(B, in_chans, H, W)` or clips `(B, in_chans, F, H, W)`: `(B, C)`."""
    return model.forward_head(model.forward_features(images), pre_logits=True)


def check_enough_images(images: LabelledSamples, world: World) -> None:
    """Raises UserError if there are fewer images than processes."""
    if len(images) < world.size:
        raise UserError(f"{len(images)} images cannot be shared by {world.size} processes; start fewer.")


@torch.no_grad()
def extract_features(
    model: Classifier,
    images: LabelledSamples,
    batch_size: int,
    num_workers: int,
    world: World,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features `(N, C)`, float32 on the CPU, and labels `(N,)` of all images, the same in every process.

    Raises:
        UserError: there are fewer images than processes.
    """
    check_enough_images(images, world)
    model.eval()
    features, labels = [], []
    for image, label, *_ in eval_loader(images, batch_size, num_workers, world):
        with autocast():
            features.append(pooled_features(model, images_on(image, device)).float())
        labels.append(label.to(device))
    whole = [world.interleave(torch.cat(part), len(images)).cpu() for part in (features, labels)]
    return whole[0], whole[1]
