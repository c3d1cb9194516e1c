"""Plans for this CPU, and the same steps run and measured here by PyTorch's profiler."""

from collections.abc import Callable

import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lazyrun.benchmarks.synthetic import synthetic_batch
from lazyrun.planning.config import config_to_plan
from lazyrun.planning.rcnn import rcnn_training_pass
from pretrain.common.planning.fake import fake_tensors, make_fake
from pretrain.common.planning.memory import StepMemory, step_memory
from pretrain.training.planning import pretraining_to_plan

CPU = torch.device("cpu")


def _allocations(block: Callable[[], object]) -> tuple[object, list[int]]:
    """What `block` returns, and the bytes that it has allocated beyond those before it, after each change."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = block()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    levels = [0]
    for event in sorted(events, key=lambda e: e.start_ns()):
        levels.append(levels[-1] + event.nbytes())
    return result, levels


def measured_step(forward: Callable[[], torch.Tensor], given: int = 0) -> tuple[int, int]:
    """Bytes kept between forward and backward pass, and most bytes of both, beyond parameters.

    Args:
        given: bytes of the input, which was there before.
    """
    loss, levels = _allocations(forward)
    saved = levels[-1]
    _, backward = _allocations(loss.backward)
    return given + saved, given + max(*levels, *(saved + level for level in backward))


def planned_step(model: nn.Module, make_forward: Callable[[nn.Module], Callable[[], torch.Tensor]]) -> StepMemory:
    with fake_tensors(recompute_once=True) as mode:
        make_fake(model, mode, CPU)
        return step_memory(model, lambda: make_forward(model))


def _checkpoint(model: nn.Module, enable: bool) -> None:
    for part in model.modules():
        if hasattr(part, "set_grad_checkpointing"):
            part.set_grad_checkpointing(enable)


def pretraining(options: list[str], batch_size: int, checkpointed: bool) -> tuple[StepMemory, tuple[int, int]]:
    """A step planned and measured."""
    training = pretraining_to_plan(options, 1, 1000)
    _checkpoint(training.model, checkpointed)
    for parameter in training.model.parameters():  # values do not matter, but must not be infinite
        nn.init.normal_(parameter, std=0.02)
    with torch.random.fork_rng():
        forward = training.make_forward(training.model, batch_size)
        imgs, _, noise = _inputs_of(forward)
        nn.init.uniform_(imgs)
        nn.init.uniform_(noise)
        measured = measured_step(forward, imgs.nbytes + noise.nbytes)
    training.model.zero_grad(set_to_none=True)
    return planned_step(training.model, lambda model: training.make_forward(model, batch_size)), measured


def _inputs_of(forward: Callable[[], torch.Tensor]) -> tuple:
    cells = dict(zip(forward.__code__.co_freevars, (c.cell_contents for c in forward.__closure__), strict=True))
    return cells["imgs"], None, cells["noise"]


def detector(config: str, overrides: list[str], size: int, batch_size: int) -> tuple[StepMemory, tuple[int, int]]:
    """A step planned and measured; planned with as many objects among the proposals as the real step had."""
    from lazyrun.benchmarks.models import build_detector
    from lazyrun.config.loading import load_config

    cfg = load_config(config, overrides)
    model = build_detector(cfg, size, CPU)
    model.train()
    batch = synthetic_batch(batch_size, size, model.roi_heads.num_classes)

    def forward() -> torch.Tensor:
        with EventStorage() as storage:
            loss = sum(model(batch).values())
            forward.foreground = storage.latest()["roi_head/num_fg_samples"][0]
        return loss

    measured = measured_step(forward)
    model.zero_grad(set_to_none=True)
    foreground = round(forward.foreground)
    return planned_step(model, lambda m: rcnn_training_pass(m, batch_size, (size, size), foreground)), measured


def segmentor(config: str, overrides: list[str], batch_size: int) -> tuple[StepMemory, tuple[int, int]]:
    """A step planned and measured."""
    training = config_to_plan(config, overrides, 1, 1000)
    model = training.model
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    size = model.inference.window_size
    image = torch.rand(3, size, size)
    batch = [{"image": image, "sem_seg": torch.zeros(size, size, dtype=torch.int64)}] * batch_size
    measured = measured_step(lambda: sum(model.train()(batch).values()), image.nbytes + size * size * 8)
    model.zero_grad(set_to_none=True)
    return planned_step(model, lambda m: training.make_forward(m, batch_size)), measured
