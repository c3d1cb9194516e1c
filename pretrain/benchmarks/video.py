"""The pretraining step of VideoConvMAE timed against the dense masked computation, and the decoding of clips."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from pretrain.benchmarks.video_baselines import DenseVideoConvMAE
from pretrain.common.devices import AMP
from pretrain.common.distributed import World
from pretrain.common.measure import hardware, interleaved_times, peak_memory, saved_activation_bytes
from pretrain.data.samplers import StatelessSampler, train_loader
from pretrain.data.video.datasets import MaskedClips, RandomClip
from pretrain.data.video.readers import open_videos
from pretrain.data.video.sampling import FrameSampler
from pretrain.data.video.transforms import train_clips
from pretrain.models import VideoConvMAE, build_model
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.models.video.autoencoder import DEFAULT_MASK_RATIO

__all__ = ["benchmark_decoding", "benchmark_video"]

DENSE = "dense, masked"


def benchmark_video(
    name: str, batch_size: int, input_size: int, num_frames: int, conv_frames: int, device: str, amp: str, rounds: int
) -> str:
    """Measures forward + backward of the dense computation and of ours, in turn, with the same weights and tubes.

    Args:
        name: a key of :data:`pretrain.models.VIDEO_MODELS`.
        input_size: side of the frames in pixels.
        amp: a key of :data:`pretrain.common.devices.AMP`.
        rounds: passes that the medians are taken of.

    Returns:
        a Markdown table and the ratios.
    """
    on = torch.device(device)
    torch.manual_seed(0)
    model = build_model(name, img_size=input_size, num_frames=num_frames, conv_frames=conv_frames).to(on)
    assert isinstance(model, VideoConvMAE), f"{name} is no video model to pretrain"
    modules: dict[str, torch.nn.Module] = {DENSE: DenseVideoConvMAE(model), "ours": ReconstructionLoss(model)}
    clips = torch.randn(batch_size, 3, num_frames, input_size, input_size, device=on)
    noise = torch.rand(batch_size, model.grid_size[0] * model.grid_size[1], device=on)

    def forward(module: torch.nn.Module) -> torch.Tensor:
        with torch.autocast(on.type, AMP[amp]) if AMP[amp] else nullcontext():
            outputs = module(clips, DEFAULT_MASK_RATIO, noise)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def step(module: torch.nn.Module) -> float:
        module.zero_grad(set_to_none=True)
        loss = forward(module)
        loss.backward()
        return loss.item()

    losses = {name: step(module) for name, module in modules.items()}  # a warm-up too
    saved = {name: saved_activation_bytes(partial(forward, m), m.parameters()) for name, m in modules.items()}
    peaks = {name: peak_memory(partial(step, module), on) for name, module in modules.items()}
    times = interleaved_times({name: partial(step, m) for name, m in modules.items()}, on, rounds, warmup=0)
    title = (
        f"{name}, batch {batch_size}, {num_frames} frames of {input_size} pixels, kernels {conv_frames}x5x5, "
        f"mask ratio {DEFAULT_MASK_RATIO}, amp {amp}, {hardware(on)}, torch {torch.__version__}, "
        f"median of {rounds} rounds"
    )
    deviation = abs(losses["ours"] / losses[DENSE] - 1)
    told = f"loss, relative deviation of ours from dense: {deviation:.1e}"
    return "\n".join([title, "", *_report(batch_size, times, saved, peaks), told])


def _report(batch_size: int, times: dict, saved: dict, peaks: dict) -> list[str]:
    """Lines of the table and the ratios."""
    rows = ["| | s/step | clips/s | saved activations, MB/clip | peak memory, GB |", "|---|---|---|---|---|"]
    for label, seconds in times.items():
        memory = "-" if peaks[label] is None else f"{peaks[label] / 1e9:.2f}"
        megabytes = saved[label] / batch_size / 1e6
        rows.append(f"| {label} | {seconds:.3f} | {batch_size / seconds:.2f} | {megabytes:.1f} | {memory} |")
    ratios = [
        f"time, dense / ours: {times[DENSE] / times['ours']:.2f}",
        f"saved activations, ours / dense: {saved['ours'] / saved[DENSE]:.2f}",
    ]
    return [*rows, "", *ratios]


def benchmark_decoding(
    videos: str, name: str, batch_size: int, input_size: int, num_frames: int, num_workers: int, device: str, steps: int
) -> str:
    """Measures how fast one process makes training clips, and what share of training steps waits for them.

    Args:
        videos: a folder of videos or a list.
        name: a key of :data:`pretrain.models.VIDEO_MODELS`, whose steps use the clips.
        num_workers: processes that decode for these steps.
        steps: that are timed.

    Returns:
        two lines.
    """
    on = torch.device(device)
    model = build_model(name, img_size=input_size, num_frames=num_frames).to(on)
    assert isinstance(model, VideoConvMAE)
    views = RandomClip(FrameSampler(num_frames), train_clips(model.img_size, 3, True))
    clips = MaskedClips(open_videos(videos), views, model.grid_size[0] * model.grid_size[1], 0, 3)
    count = min(len(clips), 20)
    start = time.process_time()
    for index in range(count):
        clips[0, index]
    rate = count / (time.process_time() - start)

    batches = _endless(train_loader(clips, batch_size, num_workers, World(), False))
    waited, begin = 0.0, time.perf_counter()
    for step in range(steps + 1):
        start = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - start
        model.zero_grad(set_to_none=True)
        model.forward_loss(batch.image.to(on), DEFAULT_MASK_RATIO, batch.noise.to(on)).backward()
        if step == 0:  # starts the workers
            waited, begin = 0.0, time.perf_counter()
    share = waited / (time.perf_counter() - begin)
    return (
        f"decoding: {rate:.2f} clips of {num_frames} frames at {input_size} pixels per second and core\n"
        f"data wait: {share:.0%} of {steps} steps of batch {batch_size} with {num_workers} workers, {hardware(on)}"
    )


def _endless(loader: DataLoader) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    epoch = 0
    assert isinstance(loader.sampler, StatelessSampler)
    while True:
        loader.sampler.set_position(epoch)
        yield from loader
        epoch += 1
