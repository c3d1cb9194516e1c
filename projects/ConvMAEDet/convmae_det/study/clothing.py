"""Accuracy by nearest neighbours, a linear probe, and fine-tuning on a part of the labels, on photos in class folders.

The tiny classifier at 64 pixels starts from random weights, or from ConvMAE or FastConvMAE pretraining on all training
photos without labels. Fine-tuning is the same for all, but each start has its own learning rate, from the same three,
chosen on training photos that were held back for it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.common.errors import UserError
from pretrain.common.jobs import Job, run_jobs

__all__ = ["COMMON", "MODEL", "PRETRAIN", "PROBE", "Accuracy", "classifier_flags", "run_clothing"]

SIZE = 64  # pixels
MODEL = "tiny_patch8"
# About equal CPU time: an epoch of FastConvMAE has four masked views of each photo.
EPOCHS = {"convmae": 24, "fastconvmae": 6}
FRACTIONS = {0.01: (60, 8), 0.1: (20, 32), 1.0: (6, 32)}  # of the labels; epochs and batch size of fine-tuning
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
CHOSEN_ON = 0.1  # of the labels
HELD_BACK = 5  # every fifth training photo judges the learning rates
COMMON = ("--input_size", SIZE, "--device", "cpu", "--num_workers", 0)
PRETRAIN = ("--batch_size", 16, "--lr", 1e-3, "--warmup_epochs", 1)
FINETUNE = (
    *("--warmup_epochs", 1, "--layer_decay", 0.8, "--eval_epochs", 100, "--drop_path", 0),
    *("--aa", "none", "--reprob", 0, "--mixup", 0, "--cutmix", 0, "--crop_min", 0.35),
)
PROBE = ("--no-augment", "--batch_size", 128, "--epochs", 30, "--eval_epochs", 30, "--lr", 2)


def run_clothing(source: Path, output: Path, root: Path, processes: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Runs the study, or what is missing of it.

    Args:
        source: folder with `train/CLASS/…` and `val/CLASS/…`.
        output: folder of the study.
        root: of the project, where commands run.
        processes: runs at a time.
        seeds: of the reported runs; each draws its own labelled photos. All labels are fine-tuned once only.

    Returns:
        one dict a measurement: `method`, `measure`, `fraction` of the labels, `seed`, `acc1` in percent, CPU seconds.

    Raises:
        UserError: the data is no such folder, or a command failed.
    """
    if not (source / "train").is_dir() or not (source / "val").is_dir():
        raise UserError(f"{source} has no folders train and val.")
    _check_size(source / "train")
    choosing = _hold_back(source, output / "data")
    pretraining = [_pretraining(method, epochs, source, output) for method, epochs in EPOCHS.items()]
    run_jobs(pretraining, root, processes)
    starts: dict[str, Path | None] = {"random": None}
    starts |= {job.facts["method"]: job.folder / "encoder.pth" for job in pretraining}

    choices = [
        _finetuning(output / f"choose_{method}_{lr:g}", choosing, method, start, CHOSEN_ON, lr, 0)
        for method, start in starts.items()
        for lr in LEARNING_RATES
    ]
    found = run_jobs(choices, root, processes)
    best = {m: max((r for r in found if r["method"] == m), key=lambda r: r["acc1"])["lr"] for m in starts}

    jobs = []
    for method, start in starts.items():
        for measure, recipe in (("knn", ()), ("linprobe", PROBE)):
            folder = output / f"{method}_{measure}"
            command = ("-m", f"pretrain.{measure}", *classifier_flags(source, folder, start), *recipe)
            facts = {"method": method, "measure": measure, "fraction": 1.0, "seed": 0}
            jobs.append(Job(folder, command, Accuracy(measure), facts))
        for fraction in FRACTIONS:
            for seed in seeds if fraction < 1 else seeds[:1]:
                folder = output / f"{method}_finetune_{fraction:g}_seed{seed}"
                jobs.append(_finetuning(folder, source, method, start, fraction, best[method], seed))
    return run_jobs(jobs, root, processes)


def classifier_flags(data: Path, folder: Path, start: Path | None) -> list[object]:
    """Flags of a command that measures features: from the weights of `start`, or random ones."""
    weights = [] if start is None else ["--init_weights", start]
    return ["--model", f"convvit_{MODEL}", "--data_path", data, "--output_dir", folder, *COMMON, *weights]


def _pretraining(method: str, epochs: int, source: Path, output: Path) -> Job:
    folder = output / f"pretrain_{method}_{epochs}ep"
    command = ("-m", "pretrain", "--model", f"{method}_convvit_{MODEL}", "--data_path", source / "train", *COMMON)
    schedule = ("--epochs", epochs, "--save_epochs", epochs, "--output_dir", folder)
    return Job(folder, (*command, *PRETRAIN, *schedule), lambda _: {}, {"method": method, "epochs": epochs})


def _finetuning(
    folder: Path, data: Path, method: str, start: Path | None, fraction: float, lr: float, seed: int
) -> Job:
    epochs, batch_size = FRACTIONS[fraction]
    schedule = ("--epochs", epochs, "--label_fraction", fraction, "--lr", lr, "--seed", seed)
    recipe = ("--batch_size", batch_size, *FINETUNE)
    command = ("-m", "pretrain.finetune", *classifier_flags(data, folder, start), *recipe, *schedule)
    facts = {"method": method, "measure": "finetune", "fraction": fraction, "lr": lr, "seed": seed}
    return Job(folder, command, Accuracy("finetune"), facts)


class Accuracy:
    """Reads what a command of :mod:`pretrain` measured from its JSON file."""

    def __init__(self, measure: str):
        self.measure = measure

    def __call__(self, folder: Path) -> dict[str, Any]:
        result = {"acc1": round(json.loads((folder / f"{self.measure}.json").read_text())["acc1"], 2)}
        if self.measure == "finetune":
            for weights in folder.glob("*.pth"):
                weights.unlink()
        return result


def _check_size(folder: Path) -> None:
    """Raises UserError if a fraction of the labels would give no optimizer step."""
    fraction, (_, batch_size) = min(FRACTIONS.items())
    count = sum(1 for path in folder.glob("*/*") if path.is_file())
    if int(count * fraction) < batch_size:
        raise UserError(
            f"{folder} holds {count} photos, of which {fraction:.0%} do not fill a batch of {batch_size}; the study "
            f"needs {round(batch_size / fraction)}."
        )


def _hold_back(source: Path, folder: Path) -> Path:
    """A folder of links in which some training photos are those that learning rates are judged by."""
    for images in sorted((source / "train").iterdir()):
        for i, image in enumerate(sorted(images.iterdir()) if images.is_dir() else ()):
            link = folder / ("val" if i % HELD_BACK == 0 else "train") / images.name / image.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(image.resolve())
    return folder
