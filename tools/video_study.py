#!/usr/bin/env python3
"""Does pretraining on clips pay? Moving shapes, whose class is how they move, within minutes on CPU cores.

    python tools/video_study.py output/video_study

For each seed: VideoConvMAE pretraining on all training videos without labels, then fine-tuning from it and from random
weights with a part of the labels, nearest neighbours from both, and fine-tuning on clips that repeat one frame. A
stopped study goes on where it was. Writes results.json and table.md.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.jobs import Job, run_jobs
from pretrain.common.temporary import replacing, save_json

ROOT = Path(__file__).resolve().parents[1]
TRAIN_SCENES, VAL_SCENES = 300, 30  # of six videos, one a class
LABELS = 0.02  # share of the training videos that fine-tuning sees: 36
SHAPES = ("--train", TRAIN_SCENES, "--val", VAL_SCENES, "--size", 32, "--plain")
CLIP = ("--recipe", "ssv2", "--input_size", 32, "--patch_size", 4, 2, 1, "--num_frames", 8, "--device", "cpu")
CLIP = (*CLIP, "--sampling", "dense", "--frame_step", 1, "--num_workers", 0)
# Raw pixels: where a patch of these drawings is flat there is nothing to standardise.
PRETRAIN = ("--mask_ratio", 0.5, "--batch_size", 16, "--epochs", 15, "--warmup_epochs", 1, "--lr", 1e-3)
PRETRAIN = (*PRETRAIN, "--no-norm_pix_loss", "--save_epochs", 100)
FINETUNE = ("--label_fraction", LABELS, "--batch_size", 12, "--epochs", 120, "--warmup_epochs", 5, "--lr", 5e-4)
FINETUNE = (*FINETUNE, "--eval_epochs", 200, "--save_epochs", 200, "--layer_decay", 1, "--drop_path", 0)
FINETUNE = (*FINETUNE, "--aa", "none", "--reprob", 0, "--mixup", 0, "--cutmix", 0, "--crop_min", 0.6)
ARMS = {
    "knn_random": "nearest neighbours, random weights",
    "knn_pretrained": "nearest neighbours, pretrained",
    "finetune_random": "fine-tuning from random weights",
    "finetune_pretrained": "fine-tuning from pretraining",
    "finetune_still": "fine-tuning from pretraining, one frame repeated",
}


class Accuracy:
    """Reads what a command measured, and removes checkpoints."""

    def __init__(self, command: str):
        self.command = command

    def __call__(self, folder: Path) -> dict[str, Any]:
        for weights in folder.glob("checkpoint-*.pth"):
            weights.unlink()
        return {"acc1": round(json.loads((folder / f"{self.command}.json").read_text())["acc1"], 2)}


def run_study(output: Path, processes: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Runs the study, or what is missing of it; returns one dict a measurement."""
    data = output / "shapes"
    make = ("datasets/make_moving_shapes.py", data / "videos", *SHAPES)
    run_jobs([Job(data, make, lambda _: {})], ROOT, 1)
    common = ("--data_path", data / "videos", *CLIP)
    pretraining = [_pretraining(output / f"pretrain_seed{seed}", common, seed) for seed in seeds]
    measured = run_jobs(pretraining, ROOT, processes)
    jobs = [_measurement(output, name, common, seed) for seed in seeds for name in ARMS]
    return [*measured, *run_jobs(jobs, ROOT, processes)]


def _pretraining(folder: Path, common: Sequence[object], seed: int) -> Job:
    flags = ("-m", "pretrain", "--model", "videoconvmae_convvit_tiny_patch16", *common, *PRETRAIN)
    return Job(
        folder, (*flags, "--seed", seed, "--output_dir", folder), _last_losses, {"arm": "pretrain", "seed": seed}
    )


def _last_losses(folder: Path) -> dict[str, Any]:
    for weights in folder.glob("checkpoint-*.pth"):
        weights.unlink()
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return {name: round(last[name], 4) for name in ("train_loss", "val_loss")}


def _measurement(output: Path, name: str, common: Sequence[object], seed: int) -> Job:
    command, _, start = name.partition("_")
    folder = output / f"{name}_seed{seed}"
    flags = ["-m", f"pretrain.{command}", "--model", "videoconvvit_tiny_patch16", *common, "--seed", seed]
    flags += ["--output_dir", folder, *(FINETUNE if command == "finetune" else ())]
    if start != "random":
        flags += ["--init_weights", output / f"pretrain_seed{seed}" / "encoder.pth"]
    if start == "still":
        flags += ["--sampling", "still"]
    return Job(folder, flags, Accuracy(command), {"arm": name, "seed": seed})


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Top-1 accuracy in percent, mean and range over the seeds."""
    lines = ["| | top-1 | range | CPU s |", "|---|---|---|---|"]
    for arm, title in ARMS.items():
        found = [row for row in rows if row["arm"] == arm]
        values = [row["acc1"] for row in found]
        seconds = statistics.mean(row["cpu_seconds"] for row in found)
        spread = f"{min(values):.1f} to {max(values):.1f}"
        lines.append(f"| {title} | {statistics.mean(values):.1f} | {spread} | {seconds:.0f} |")
    seconds = statistics.mean(row["cpu_seconds"] for row in rows if row["arm"] == "pretrain")
    return "\n".join([*lines, f"| pretraining | | | {seconds:.0f} |"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time (default: one a core)")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    if args.processes < 1 or min(args.seeds) < 0:
        parser.error("--processes must be at least 1 and seeds at least 0")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    output = args.output.resolve()
    with exit_on_user_error():
        rows = run_study(output, args.processes, args.seeds)
        table = table_of(rows)
        facts = {"command": "tools/video_study.py OUTPUT", "machine": platform.machine(), "cores": os.cpu_count()}
        kept = [{key: value for key, value in row.items() if key != "command"} for row in rows]
        save_json({**facts, "torch": metadata.version("torch"), "results": kept}, output / "results.json")
        with replacing(output / "table.md") as temporary:
            temporary.write_text(table + "\n")
    print(f"{table}\n\n{output}/results.json, table.md")


if __name__ == "__main__":
    main()
