#!/usr/bin/env python
"""Does pretraining help, and which one? Several seeds on Fashion-MNIST, within minutes on CPU cores.

    python tools/pretraining_study.py FOLDER output/study --seeds 0 1 2
    python tools/pretraining_study.py FOLDER output/study --report

For each seed: nearest neighbours and a linear probe from random weights, from ConvMAE and from FastConvMAE pretraining
of equal CPU time, and fine-tuning from ConvMAE against training from scratch at 1 % of the labels. What is
finished is kept, so that seeds may run in several processes and a stopped study goes on. The report has mean and range.
"""

import argparse
import json
import logging
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.temporary import save_json
from pretrain.common.utf8 import use_utf8
from pretrain.training.args import parse_args as parse_pretrain_args
from pretrain.training.classification_args import parse_finetune_args, parse_knn_args, parse_linprobe_args

SIZE = "tiny_patch8_32"
TRAIN_IMAGES, TEST_IMAGES = 6_000, 2_000
LABELS_1_PERCENT = 600 / TRAIN_IMAGES  # of the 60 000 training images of the whole set
# Equal CPU time, which is reported: an epoch of FastConvMAE, with four views of each image, takes about twice as long.
EPOCHS = {"convmae": 13, "fastconvmae": 7}
PRETRAIN = ["--batch_size=32", "--warmup_epochs=0.5", "--lr=1.5e-3", "--log_steps=50", "--save_epochs=100"]
PROBE = ["--no-augment", "--label_fraction=0.5", "--batch_size=250", "--epochs=40", "--eval_epochs=40", "--lr=5"]
FINETUNE = [
    f"--label_fraction={LABELS_1_PERCENT}",
    *("--batch_size=50", "--epochs=15", "--eval_epochs=15", "--warmup_epochs=2", "--lr=1e-3", "--layer_decay=0.8"),
    *("--aa=none", "--reprob=0", "--mixup=0", "--cutmix=0", "--crop_min=0.5", "--drop_path=0"),
]


def write_subset(source: str, folder: Path) -> None:
    """A part of Fashion-MNIST as IDX files: random training images, the first test images."""
    import numpy as np

    from pretrain.data.readers import FashionMnistReader

    for split, name, count in (("train", "train", TRAIN_IMAGES), ("val", "t10k", TEST_IMAGES)):
        reader = FashionMnistReader(source, split)
        folder.mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(0).permutation(len(reader)) if split == "train" else np.arange(len(reader))
        for kind, values in (("images-idx3", reader.images), ("labels-idx1", reader.labels)):
            values = values[order[:count]]
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())


def once(folder: Path, work: Callable[[], dict | None]) -> None:
    """Runs a stage unless its result exists, and notes its CPU time; an unfinished result is deleted."""
    if (folder / "done.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.process_time()
    work()
    save_json({"cpu_seconds": time.process_time() - start}, folder / "done.json")


def run_seed(data: Path, output: Path, seed: int) -> None:
    # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
    from pretrain.data.readers import FASHION_MNIST
    from pretrain.evaluation import neighbours
    from pretrain.training import finetuning, linear_probe, pretraining

    common = ["--in_chans=1", f"--data_path={FASHION_MNIST}{data}", "--device=cpu", "--num_workers=0", f"--seed={seed}"]
    for method, epochs in EPOCHS.items():
        folder = output / method
        flags = [*common, f"--model={method}_convvit_{SIZE}", *PRETRAIN, f"--epochs={epochs}", f"--output_dir={folder}"]
        once(folder, lambda f=flags: pretraining.run(parse_pretrain_args(f)))
    for method in ("random", *EPOCHS):
        weights = [] if method == "random" else [f"--init_weights={output / method / 'encoder.pth'}"]
        flags = [*common, f"--model=convvit_{SIZE}", *weights]
        for name, run, parse, recipe in (
            ("knn", neighbours.run, parse_knn_args, ["--label_fraction=0.5"]),
            ("linprobe", linear_probe.run, parse_linprobe_args, [*PROBE, "--log_steps=1000"]),
            ("finetune", finetuning.run, parse_finetune_args, [*FINETUNE, "--log_steps=1000"]),
        ):
            if (name, method) == ("finetune", "fastconvmae"):
                continue
            folder = output / f"{method}_{name}"
            argv = [*flags, *recipe, f"--output_dir={folder}"]
            once(folder, lambda run=run, parse=parse, argv=argv: run(parse(argv)))


def report(output: Path) -> str:
    """Mean, smallest and largest top-1 accuracy and CPU seconds over the seeds that have each result."""
    lines = ["| | weights | top-1 mean | range | seeds | CPU s |", "|---|---|---|---|---|---|"]
    for name in ("knn", "linprobe", "finetune"):
        for method in ("random", *EPOCHS):
            folders = [p.parent for p in output.glob(f"seed*/{method}_{name}/done.json")]
            if folders:
                found = [json.loads((p / f"{name}.json").read_text())["acc1"] for p in folders]
                lines.append(f"| {name} | {method} | {_summary(found, folders)} |")
    for method, epochs in EPOCHS.items():
        folders = [p.parent for p in output.glob(f"seed*/{method}/done.json")]
        if folders:
            lines.append(f"| pretraining, {epochs} epochs | {method} | | | {len(folders)} | {_cpu(folders):.0f} |")
    return "\n".join(lines)


def _summary(values: list[float], folders: list[Path]) -> str:
    spread = f"{min(values):.1f} to {max(values):.1f}"
    return f"{statistics.mean(values):.1f} | {spread} | {len(values)} | {_cpu(folders):.0f}"


def _cpu(folders: list[Path]) -> float:
    return statistics.mean(json.loads((p / "done.json").read_text())["cpu_seconds"] for p in folders)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="FOLDER", help="Fashion-MNIST, as for --data_path fashion_mnist:FOLDER")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="only print the results that exist")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    with exit_on_user_error():
        if not args.report:
            import torch

            torch.set_num_threads(1)
        for seed in args.seeds if not args.report else ():
            data = args.output / f"seed{seed}" / "data"
            write_subset(args.source, data)
            run_seed(data, args.output / f"seed{seed}", seed)
    print(report(args.output))


if __name__ == "__main__":
    use_utf8()
    main()
