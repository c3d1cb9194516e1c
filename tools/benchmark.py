"""Benchmarks. `benchmark.py pretrain`: our pretraining step against the published algorithm and a plain MAE."""

import argparse
import sys
from contextlib import nullcontext
from functools import partial

import torch

from pretrain.autoencoder import ReconstructionLoss
from pretrain.baselines import DenseConvMAE, MaskedAutoencoderViT
from pretrain.measure import interleaved_times, peak_memory, saved_activation_bytes
from pretrain.models import MODELS, build_model

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


def first(outputs: torch.Tensor | tuple) -> torch.Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def add_pretrain_parser(subcommands) -> None:
    parser = subcommands.add_parser(
        "pretrain",
        help="a forward and backward pass of ConvMAE or FastConvMAE",
        description="Times forward + backward of the published dense computation, of ours with the same weights and "
        "masks, and of MAE ViT-B, turn by turn, and reports medians. Saved activations are what autograd keeps "
        "between the two passes, weights not counted.",
    )
    parser.add_argument("--model", default="convmae_convvit_base_patch16", choices=MODELS, metavar="NAME")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--input_size", type=int, default=224)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", choices=AMP, default="off")
    parser.add_argument("--compile", action="store_true", help="run ours through torch.compile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.set_defaults(run=benchmark_pretrain)


def benchmark_pretrain(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = build_model(args.model, img_size=args.input_size, norm_pix_loss=True).to(device)
    ours = ReconstructionLoss(model)
    modules = {
        "dense, as published": DenseConvMAE(model),
        "ours": torch.compile(ours) if args.compile else ours,
        "MAE ViT-B": MaskedAutoencoderViT(args.input_size).to(device),
    }
    imgs = torch.randn(args.batch_size, 3, args.input_size, args.input_size, device=device)
    noise = torch.rand(args.batch_size, model.grid_size[0] * model.grid_size[1], device=device)

    def forward(module: torch.nn.Module) -> torch.Tensor:
        autocast = torch.autocast(device.type, AMP[args.amp]) if AMP[args.amp] else nullcontext()
        with autocast:
            return first(module(imgs, 0.75, noise))

    def step(module: torch.nn.Module) -> float:
        module.zero_grad(set_to_none=True)
        loss = forward(module)
        loss.backward()
        return loss.item()

    def forget_gradients() -> None:
        for module in modules.values():
            module.zero_grad(set_to_none=True)

    losses = {name: step(module) for name, module in modules.items()}  # a warm-up too
    saved = {name: saved_activation_bytes(partial(forward, m), m.parameters()) for name, m in modules.items()}
    peaks = {}
    for name, module in modules.items():
        forget_gradients()  # each model's gradients would count in the others' memory
        peaks[name] = peak_memory(partial(step, module), device)
    times = interleaved_times({name: partial(step, m) for name, m in modules.items()}, device, args.rounds, warmup=0)
    report(args, times, saved, peaks, losses)


def report(args, times: dict, saved: dict, peaks: dict, losses: dict) -> None:
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    lines = [
        f"{args.model}, batch {args.batch_size}, {args.input_size} pixels, amp {args.amp}, {where}, "
        f"torch {torch.__version__}, median of {args.rounds} rounds",
        "",
        "| | s/step | images/s | saved activations, MB/image | peak memory, GB |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in times.items():
        megabytes = saved[name] / args.batch_size / 1e6
        peak = "-" if peaks[name] is None else f"{peaks[name] / 1e9:.2f}"
        lines.append(f"| {name} | {seconds:.3f} | {args.batch_size / seconds:.2f} | {megabytes:.1f} | {peak} |")
    dense = "dense, as published"
    lines += [
        "",
        f"time, dense / ours: {times[dense] / times['ours']:.2f}; ours / MAE ViT-B: "
        f"{times['ours'] / times['MAE ViT-B']:.2f}",
        f"saved activations, ours / dense: {saved['ours'] / saved[dense]:.2f}",
        f"loss, relative deviation of ours from dense: {abs(losses['ours'] / losses[dense] - 1):.1e}",
    ]
    if peaks["ours"] is not None:
        lines.append(f"peak memory, ours / dense: {peaks['ours'] / peaks[dense]:.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    subcommands = parser.add_subparsers(required=True, metavar="{pretrain}")
    add_pretrain_parser(subcommands)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
