"""The pretraining step timed with targets beside pixels: what teachers and heads cost."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from pretrain.checkpoints.encoder_file import load_network
from pretrain.common.devices import autocast_of
from pretrain.common.measure import hardware, interleaved_times
from pretrain.data.pixels import normalisation
from pretrain.models import build_model
from pretrain.models.autoencoder import MaskedAutoencoderConvViT
from pretrain.models.mixture import MixtureLoss, add_target_heads
from pretrain.models.teachers import EmaTeacher, Teacher, convvit_teacher, timm_teacher
from pretrain.names import PIXELS
from pretrain.training.target_args import EMA, Target, parse_target

__all__ = ["benchmark_targets"]


def benchmark_targets(
    name: str, batch_size: int, input_size: int, device: str, amp: str, rounds: int, targets: Sequence[str]
) -> str:
    """Measures forward + backward with pixels alone and with each target beside them, in turn.

    Teachers of timm keep random weights; the average of the encoder is updated in each step.

    Args:
        name, batch_size, input_size, amp, rounds: as for :func:`pretrain.benchmarks.pretraining.benchmark_pretrain`.
        targets: as `--targets` of pretraining takes them.

    Returns:
        a Markdown table.

    Raises:
        UserError: one of the targets is none.
    """
    on = torch.device(device)
    torch.manual_seed(0)
    imgs = torch.randn(batch_size, 3, input_size, input_size, device=on)
    steps: dict[str, Callable[[], object]] = {}
    for target in [parse_target(PIXELS), *(t for t in map(parse_target, targets) if t.needs_teacher)]:
        label = f"{PIXELS} + {target.name}" if target.needs_teacher else PIXELS
        steps[label] = _step(name, target, imgs, amp)
    times = interleaved_times(steps, on, rounds)
    title = (
        f"{name}, batch {batch_size}, {input_size} pixels, amp {amp}, {hardware(on)}, torch {torch.__version__}, "
        f"median of {rounds} rounds"
    )
    lines = ["| targets | s/step | images/s | time / rgb |", "|---|---|---|---|"]
    lines += [f"| {n} | {s:.3f} | {batch_size / s:.2f} | {s / times[PIXELS]:.2f} |" for n, s in times.items()]
    return "\n".join([title, "", *lines])


def _step(name: str, target: Target, imgs: torch.Tensor, amp: str) -> Callable[[], object]:
    """A training step without the optimizer, of a model of its own."""
    model = build_model(name, img_size=imgs.shape[-1], norm_pix_loss=True)
    assert isinstance(model, MaskedAutoencoderConvViT), f"{name} is no model to pretrain"
    teacher = _teacher(target, model) if target.needs_teacher else None
    add_target_heads(model, {PIXELS: None} | ({target.name: teacher.dim} if teacher else {}), None)
    model.to(imgs.device)
    teachers = {target.name: teacher.to(imgs.device)} if teacher else {}
    loss = MixtureLoss(model, {PIXELS: 1.0} | dict.fromkeys(teachers, 1.0), teachers)
    noise = torch.rand(len(imgs), model.grid_size[0] * model.grid_size[1], device=imgs.device)
    return partial(_run, model, loss, teacher, (imgs, 0.75, noise), autocast_of(amp, imgs.device))


def _run(
    model: MaskedAutoencoderConvViT,
    loss: MixtureLoss,
    teacher: Teacher | None,
    batch: tuple[torch.Tensor, float, torch.Tensor],
    autocast: Callable[[], torch.autocast],
) -> float:
    model.zero_grad(set_to_none=True)
    with autocast():
        total, _ = loss(*batch)
    total.backward()
    if isinstance(teacher, EmaTeacher):
        teacher.update(model, 0.996)
    return total.item()


def _teacher(target: Target, model: MaskedAutoencoderConvViT) -> Teacher:
    students = normalisation(model.in_chans)
    if target.name == EMA:
        return EmaTeacher(model, students)
    if target.model:
        return timm_teacher(target.model, "", students, "", pretrained=False)
    return convvit_teacher(load_network(target.file), students)
