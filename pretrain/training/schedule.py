"""How many steps an epoch has, and the learning rate as a function of training progress."""

import math

__all__ = ["effective_batch_size", "learning_rate", "scaled_learning_rate", "steps_per_epoch"]


def effective_batch_size(batch_size: int, accum_iter: int, world_size: int) -> int:
    """Images an optimizer step sees."""
    return batch_size * accum_iter * world_size


def steps_per_epoch(num_images: int, batch_size: int, accum_iter: int, world_size: int) -> int:
    """Optimizer steps over the whole batches of each process; the last may be of fewer than `accum_iter`."""
    return math.ceil(num_images // world_size // batch_size / accum_iter)


def scaled_learning_rate(blr: float, effective_batch: int) -> float:
    """The linear scaling rule (arXiv:1706.02677): `blr` is the rate for 256 images a step."""
    return blr * effective_batch / 256


def learning_rate(epoch: float, *, lr: float, min_lr: float, warmup_epochs: float, epochs: float) -> float:
    """Linear warm-up from 0, then half a cosine down to `min_lr`; `epoch` counts fractions of epochs done."""
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = min(1.0, (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-12))
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))
