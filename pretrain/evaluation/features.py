"""Features of a frozen classifier, computed once by all processes together."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch.utils.data import Dataset

from pretrain.common.distributed import World
from pretrain.common.errors import UserError
from pretrain.data.labels import LabelledImages, LabelledSample
from pretrain.data.samplers import eval_loader
from pretrain.models.classifier import ConvViT

__all__ = ["CachedFeatures", "extract_features", "pooled_features"]


class CachedFeatures(Dataset):
    """Features in place of images, indexed as they are: by `(epoch, index)`.

    Args:
        features: `(N, C)`.
        labels: `(N,)`.
    """

    def __init__(self, features: torch.Tensor, labels: torch.Tensor):
        self.features, self.labels = features, labels
        self.readable = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, key: tuple[int, int]) -> LabelledSample:
        index = key[1]
        return LabelledSample(self.features[index], self.labels[index], self.readable)


def pooled_features(model: ConvViT, images: torch.Tensor) -> torch.Tensor:
    """What the head sees of images `(B, in_chans, H, W)`: `(B, C)`."""
    return model.forward_head(model.forward_features(images), pre_logits=True)


@torch.no_grad()
def extract_features(
    model: ConvViT,
    images: LabelledImages,
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
    if len(images) < world.size:
        raise UserError(f"{len(images)} images cannot be shared by {world.size} processes; start fewer.")
    model.eval()
    features, labels = [], []
    for image, label, _ in eval_loader(images, batch_size, num_workers, world):
        with autocast():
            features.append(pooled_features(model, image.to(device, non_blocking=True)).float())
        labels.append(label.to(device))
    return tuple(world.interleave(torch.cat(part), len(images)).cpu() for part in (features, labels))
