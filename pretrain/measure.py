"""How the benchmarks measure: interleaved timing, saved activations, peak memory."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import torch

__all__ = ["interleaved_times", "peak_memory", "saved_activation_bytes"]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved_times(
    steps: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, warmup: int = 1
) -> dict[str, float]:
    """Median seconds of each step. All are run in turn in every round, so a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(warmup + rounds):
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            if i >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def saved_activation_bytes(forward: Callable[[], object], parameters: Iterable[torch.Tensor]) -> int:
    """Bytes that autograd keeps between a forward pass and its backward pass.

    Each storage counts once however many views of it are kept; parameters, which exist anyway, do not count.
    """
    excluded = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            kept[storage.data_ptr()] = storage  # holding it keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    total = sum(storage.nbytes() for storage in kept.values())
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
