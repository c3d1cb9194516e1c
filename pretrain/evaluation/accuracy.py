"""Top-1 and top-5 accuracy in which every image of every process counts exactly once."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from pretrain.common.distributed import World
from pretrain.data.pixels import images_on

__all__ = ["accuracy_line", "measure_accuracy"]


@torch.no_grad()
def measure_accuracy(
    model: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[tuple],
    world: World,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, float]:
    """Accuracy over the batches of all processes.

    Args:
        model: images or features to logits `(B, num_classes)`, in evaluation mode.
        batches: `(input, label, ...)` of this process; together the processes have each image once.

    Returns:
        `acc1` and `acc5` in percent and the cross-entropy `loss`. With five classes or fewer `acc5` is 100.
    """
    totals = torch.zeros(4, dtype=torch.float64, device=device)
    for inputs, labels, *_ in batches:
        inputs, labels = images_on(inputs, device), labels.to(device, non_blocking=True)
        with autocast():
            logits = model(inputs)
        logits = logits.float()
        right = count_correct(logits.topk(min(5, logits.shape[1])).indices, labels)
        totals += torch.stack(
            [*right, F.cross_entropy(logits, labels, reduction="sum"), torch.tensor(len(labels), device=device)]
        )
    top1, top5, loss, count = world.sum(totals).tolist()
    return {"acc1": 100 * top1 / count, "acc5": 100 * top5 / count, "loss": loss / count}


def count_correct(ranked: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How often the label `(B,)` is the first, and one of all, of the ranked classes `(B, 5)`."""
    hits = ranked == labels[:, None]
    return hits[:, 0].sum(), hits.any(1).sum()


def accuracy_line(results: dict[str, float]) -> str:
    """`* Acc@1 … Acc@5 … loss …`, as the published code prints it."""
    loss = f" loss {results['loss']:.3f}" if "loss" in results else ""
    return f"* Acc@1 {results['acc1']:.3f} Acc@5 {results['acc5']:.3f}{loss}"
