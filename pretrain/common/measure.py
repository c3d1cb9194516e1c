"""How the benchmarks measure: interleaved timing, saved activations, peak memory, the largest batch."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import torch

__all__ = [
    "MemoryLimitExceeded",
    "hardware",
    "interleaved_times",
    "largest_batch",
    "peak_memory",
    "saved_activation_bytes",
    "synchronize",
]


class MemoryLimitExceeded(MemoryError):
    """A forward pass keeps more than it was allowed to."""


def hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved_times(
    steps: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each step. All are run in turn in every round, so a busy machine slows all of them alike.

    Args:
        clock: `time.process_time` counts CPU time, of all threads.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(warmup + rounds):
        for name, step in steps.items():
            synchronize(device)
            start = clock()
            step()
            synchronize(device)
            if i >= warmup:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def saved_activation_bytes(
    forward: Callable[[], object], parameters: Iterable[torch.Tensor], limit: int | None = None
) -> int:
    """Bytes that autograd keeps between a forward pass and its backward pass.

    Each storage counts once however many views of it are kept; parameters, which exist anyway, do not count.

    Raises:
        MemoryLimitExceeded: more than `limit` bytes; raised as soon as that is known, in mid-forward.
    """
    excluded = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, torch.UntypedStorage] = {}
    total = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded and storage.data_ptr() not in kept:
            kept[storage.data_ptr()] = storage  # holding it keeps its address from being used again
            total += storage.nbytes()
            if limit is not None and total > limit:
                raise MemoryLimitExceeded(f"More than {limit} bytes are kept for the backward pass.")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    del output
    return total


def peak_memory(step: Callable[[], object], device: torch.device) -> int | None:
    """Highest CUDA memory in bytes that a step allocates, weights included; None on a device that does not count."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def largest_batch(fits: Callable[[int], bool], most: int = 1024) -> int:
    """The largest batch size up to `most` that fits, by doubling and bisection; 0 if not even one image does."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
