"""Time and memory of a detector and of its backbone, several forms of it turn by turn."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from lazyrun.benchmarks.models import net_of
from lazyrun.benchmarks.synthetic import synthetic_batch
from pretrain.common.devices import AMP
from pretrain.common.errors import UserError
from pretrain.common.measure import (
    MemoryLimitExceeded,
    interleaved_times,
    largest_batch,
    peak_memory,
    saved_activation_bytes,
    synchronize,
)

__all__ = ["MODES", "PARTS", "Case", "Variants", "find_batch", "measure", "table"]

PARTS, MODES = ("backbone", "model"), ("train", "inference")
COMPONENTS = ("backbone", "pyramid", "rpn", "roi heads")
Variants = Callable[[nn.Module, "Case"], dict[str, nn.Module]]
"""What a detector is compared with, itself included: modules by name, which share their parameters. The first is what
the others' ratios are to."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        part: `backbone` (the transformer alone) or `model` (the whole detector with its losses or predictions).
        mode: `train` (forward + backward) or `inference`.
        size: side of the square images in pixels.
        batch_size: images.
        amp: a key of :data:`pretrain.common.devices.AMP`.
        act_checkpoint: measure ours with activation checkpointing too, in training.
    """

    part: str
    mode: str
    size: int
    batch_size: int
    amp: str = "off"
    act_checkpoint: bool = False


def forward_function(model: Any, case: Case) -> Callable[[], torch.Tensor | None]:
    """One forward pass over fixed images; in training it returns a loss."""
    device = next(model.parameters()).device
    training = case.mode == "train"
    model.train(training)
    autocast = partial(torch.autocast, device.type, AMP[case.amp]) if AMP[case.amp] else nullcontext
    if case.part == "backbone":
        images = torch.randn(case.batch_size, 3, case.size, case.size, device=device)

        def run() -> torch.Tensor | None:
            return torch.stack([f.float().square().mean() for f in net_of(model)(images).values()]).sum()
    else:
        batch = synthetic_batch(case.batch_size, case.size, model.roi_heads.num_classes)

        def run() -> torch.Tensor | None:
            outputs = model(batch)
            return sum(outputs.values()) if training else None

    def forward() -> torch.Tensor | None:
        torch.manual_seed(0)  # the same proposals and dropped paths each time
        with autocast(), EventStorage(), nullcontext() if training else torch.no_grad():
            return run()

    return forward


def step(model: nn.Module, forward: Callable[[], torch.Tensor | None]) -> None:
    """A forward pass, and in training the backward pass."""
    model.zero_grad(set_to_none=True)
    loss = forward()
    if loss is not None and loss.requires_grad:
        loss.backward()


@contextmanager
def component_times(model: Any, device: torch.device) -> Iterator[dict[str, list[float]]]:
    """Collects seconds of each forward pass of :data:`COMPONENTS`; `pyramid` includes the backbone below it."""
    modules = (net_of(model), model.backbone, model.proposal_generator, model.roi_heads)
    parts = dict(zip(COMPONENTS, modules, strict=True))
    times: dict[str, list[float]] = {name: [] for name in parts}
    starts: dict[str, float] = {}
    handles = []
    for name, module in parts.items():

        def before(*_: object, name: str = name) -> None:
            synchronize(device)
            starts[name] = time.perf_counter()

        def after(*_: object, name: str = name) -> None:
            synchronize(device)
            times[name].append(time.perf_counter() - starts[name])

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()


def measure(model: nn.Module, case: Case, rounds: int, variants: Variants) -> list[dict]:
    """Measures each variant of the model; they take turns.

    Returns:
        a dict for each variant: the case; `seconds` (median of a step) and `images_per_second`; `saved_bytes` (what
        autograd keeps between forward and backward pass; None in inference), `peak_bytes` (CUDA memory; None on a
        CPU), and `components`, seconds of the forward pass by part of the model.
    """
    device = next(model.parameters()).device
    models = variants(model, case)
    forwards = {name: forward_function(m, case) for name, m in models.items()}
    saved, peaks = {}, {}
    for name, forward in forwards.items():
        training = case.mode == "train"
        saved[name] = saved_activation_bytes(forward, models[name].parameters()) if training else None
        model.zero_grad(set_to_none=True)
        peaks[name] = peak_memory(partial(step, models[name], forward), device)
    steps = {name: partial(step, models[name], forward) for name, forward in forwards.items()}
    with ExitStack() as stack:
        passes = {name: stack.enter_context(component_times(m, device)) for name, m in models.items()}
        # Measuring saved activations has warmed the CPU up.
        warmup = 0 if case.mode == "train" and device.type == "cpu" else 1
        times = interleaved_times(steps, device, rounds, warmup)
    model.zero_grad(set_to_none=True)
    return [
        {
            "part": case.part,
            "mode": case.mode,
            "size": case.size,
            "batch_size": case.batch_size,
            "amp": case.amp,
            "variant": name,
            "seconds": times[name],
            "images_per_second": case.batch_size / times[name],
            "saved_bytes": saved[name],
            "peak_bytes": peaks[name],
            "components": _components(passes[name], rounds) if case.part == "model" else None,
        }
        for name in models
    ]


def _components(passes: dict[str, list[float]], rounds: int) -> dict[str, float]:
    """Median seconds of each component alone, over the last `rounds` passes; earlier ones warmed up."""
    seconds = {name: statistics.median(times[-rounds:]) for name, times in passes.items()}
    seconds["pyramid"] -= seconds["backbone"]
    return seconds


def table(rows: Sequence[dict]) -> str:
    """Rows of :func:`measure` as a Markdown table; ratios are those to the first variant in the same run."""
    lines = [
        "| | px | batch | amp | | s | images/s | time, ratio | saved, MB | saved, ratio | peak, GB | "
        + ", ".join(COMPONENTS)
        + ", s |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        case = {key: row[key] for key in ("part", "mode", "size", "batch_size")}
        base = next(r for r in rows if case.items() <= r.items())
        saved, peak, components = row["saved_bytes"], row["peak_bytes"], row["components"]
        cells = [
            f"{row['part']}, {row['mode']}",
            row["size"],
            row["batch_size"],
            row["amp"],
            row["variant"],
            f"{row['seconds']:.3f}",
            f"{row['images_per_second']:.3f}",
            f"{row['seconds'] / base['seconds']:.2f}",
            "-" if saved is None else f"{saved / 1e6:.0f}",
            "-" if saved is None else f"{saved / base['saved_bytes']:.2f}",
            "-" if peak is None else f"{peak / 1e9:.2f}",
            "-" if components is None else ", ".join(f"{components[name]:.3f}" for name in COMPONENTS),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _fits(model: nn.Module, case: Case, limit: int | None) -> bool:
    forward = forward_function(model, case)
    device = next(model.parameters()).device
    try:
        if device.type == "cuda":
            step(model, forward)
        else:
            saved_activation_bytes(forward, model.parameters(), limit)
        fits = True
    except (torch.cuda.OutOfMemoryError, MemoryLimitExceeded):
        fits = False
    # Outside of the handler, whose traceback would keep the tensors of the failed pass.
    model.zero_grad(set_to_none=True)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return fits


def find_batch(
    model: nn.Module, case: Case, memory_limit: float | None, variants: Variants, most: int = 1024
) -> dict[str, int]:
    """The largest batch that trains, for each variant of the model.

    Args:
        memory_limit: GB that the saved activations may take on a CPU. A GPU has its own limit.
        most: batch sizes that are tried end here.

    Raises:
        UserError: no limit on a CPU, or one on a GPU.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu != (memory_limit is not None):
        raise UserError(
            "On a CPU, --find-batch needs --memory-limit GB, which the saved activations must fit in."
            if on_cpu
            else "--memory-limit is for CPUs; on a GPU the batch grows until its memory is full."
        )
    limit = None if memory_limit is None else int(memory_limit * 1e9)
    result = {}
    for name, variant in variants(model, case).items():

        def fits(batch_size: int, variant: nn.Module = variant) -> bool:
            return _fits(variant, replace(case, batch_size=batch_size), limit)

        result[name] = largest_batch(fits, most)
    return result
