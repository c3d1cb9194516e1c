"""The pretraining step timed: ours, the published dense computation, and a plain MAE."""

from contextlib import nullcontext
from functools import partial
from typing import cast

import torch

from pretrain.benchmarks.baselines import DenseConvMAE, MaskedAutoencoderViT
from pretrain.common.devices import AMP
from pretrain.common.measure import hardware, interleaved_times, peak_memory, saved_activation_bytes
from pretrain.models import build_model
from pretrain.models.autoencoder import MaskedAutoencoderConvViT, ReconstructionLoss

__all__ = ["benchmark_pretrain"]

DENSE = "dense, as published"


def benchmark_pretrain(
    name: str, batch_size: int, input_size: int, device: str, amp: str, rounds: int, compiled: bool = False
) -> str:
    """Measures forward + backward of the three models in turn.

    Args:
        name: of a model in :data:`pretrain.models.MODELS`.
        input_size: side of the images in pixels.
        amp: a key of :data:`pretrain.common.devices.AMP`.
        rounds: passes that the medians are taken of.
        compiled: run ours through `torch.compile`.

    Returns:
        a Markdown table and the ratios.
    """
    on = torch.device(device)
    torch.manual_seed(0)
    model = build_model(name, img_size=input_size, norm_pix_loss=True).to(on)
    assert isinstance(model, MaskedAutoencoderConvViT), f"{name} is no model to pretrain"
    ours = ReconstructionLoss(model)
    modules: dict[str, torch.nn.Module] = {
        DENSE: DenseConvMAE(model),
        "ours": cast(torch.nn.Module, torch.compile(ours)) if compiled else ours,
        "MAE ViT-B": MaskedAutoencoderViT(input_size).to(on),
    }
    imgs = torch.randn(batch_size, 3, input_size, input_size, device=on)
    noise = torch.rand(batch_size, model.grid_size[0] * model.grid_size[1], device=on)

    def forward(module: torch.nn.Module) -> torch.Tensor:
        with torch.autocast(on.type, AMP[amp]) if AMP[amp] else nullcontext():
            outputs = module(imgs, 0.75, noise)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def step(module: torch.nn.Module) -> float:
        module.zero_grad(set_to_none=True)
        loss = forward(module)
        loss.backward()
        return loss.item()

    losses = {name: step(module) for name, module in modules.items()}  # a warm-up too
    saved = {name: saved_activation_bytes(partial(forward, m), m.parameters()) for name, m in modules.items()}
    peaks = {}
    for label, module in modules.items():
        for other in modules.values():
            other.zero_grad(set_to_none=True)  # each model's gradients would count in the others' memory
        peaks[label] = peak_memory(partial(step, module), on)
    times = interleaved_times({name: partial(step, m) for name, m in modules.items()}, on, rounds, warmup=0)
    title = (
        f"{name}, batch {batch_size}, {input_size} pixels, amp {amp}, {hardware(on)}, torch {torch.__version__}, "
        f"median of {rounds} rounds"
    )
    return "\n".join([title, "", *_table(batch_size, times, saved, peaks), "", *_ratios(times, saved, peaks, losses)])


def _table(batch_size: int, times: dict, saved: dict, peaks: dict) -> list[str]:
    lines = ["| | s/step | images/s | saved activations, MB/image | peak memory, GB |", "|---|---|---|---|---|"]
    for name, seconds in times.items():
        megabytes = saved[name] / batch_size / 1e6
        peak = "-" if peaks[name] is None else f"{peaks[name] / 1e9:.2f}"
        lines.append(f"| {name} | {seconds:.3f} | {batch_size / seconds:.2f} | {megabytes:.1f} | {peak} |")
    return lines


def _ratios(times: dict, saved: dict, peaks: dict, losses: dict) -> list[str]:
    lines = [
        f"time, dense / ours: {times[DENSE] / times['ours']:.2f}; ours / MAE ViT-B: "
        f"{times['ours'] / times['MAE ViT-B']:.2f}",
        f"saved activations, ours / dense: {saved['ours'] / saved[DENSE]:.2f}",
        f"loss, relative deviation of ours from dense: {abs(losses['ours'] / losses[DENSE] - 1):.1e}",
    ]
    if peaks["ours"] is not None:
        lines.append(f"peak memory, ours / dense: {peaks['ours'] / peaks[DENSE]:.2f}")
    return lines
