"""What to predict in pretraining, for equal CPU time: pixels, and beside them an average of the encoder, or a teacher.

The tiny ConvMAE at 64 pixels on photos in class folders. The teacher is the encoder of a pretraining on pixels of its
own seed; its CPU time is that of the study's other runs and is not counted as the student's. The features are measured
frozen, by nearest neighbours and a linear probe on all labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convmae_det.study.clothing import COMMON, MODEL, PRETRAIN, PROBE, Accuracy, classifier_flags
from pretrain.common.errors import UserError
from pretrain.common.jobs import Job, run_jobs

__all__ = ["run_targets"]

# About equal CPU time, which is reported: a step with the average took 1.7 times one with pixels alone, one with a
# teacher 1.4 times.
EPOCHS = {"rgb": 9, "ema": 5, "mimic": 6}
TEACHER_SEED = 1000


def run_targets(source: Path, output: Path, root: Path, processes: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Runs the study, or what is missing of it.

    Args:
        source: folder with `train/CLASS/…` and `val/CLASS/…`.
        output: folder of the study.
        root: of the project, where commands run.
        processes: runs at a time.
        seeds: each draws its own weights, masks and crops.

    Returns:
        one dict a measurement: `method`, `measure`, `seed`, `acc1` in percent, `pretraining_seconds` of CPU time.

    Raises:
        UserError: the data is no such folder, or a command failed.
    """
    if not (source / "train").is_dir() or not (source / "val").is_dir():
        raise UserError(f"{source} has no folders train and val.")
    teacher = _pretraining("rgb", TEACHER_SEED, source, output / "teacher")
    run_jobs([teacher], root, processes)
    encoder = teacher.folder / "encoder.pth"
    pretraining = [
        _pretraining(method, seed, source, output / f"{method}_seed{seed}", encoder)
        for method in EPOCHS
        for seed in seeds
    ]
    seconds = [result["cpu_seconds"] for result in run_jobs(pretraining, root, processes)]
    starts: list[tuple[dict[str, Any], Path | None]] = [
        ({"method": "random", "seed": seed, "pretraining_seconds": 0}, None) for seed in seeds
    ]
    starts += [
        ({**job.facts, "pretraining_seconds": s}, job.folder / "encoder.pth")
        for job, s in zip(pretraining, seconds, strict=True)
    ]
    return run_jobs(
        [job for facts, start in starts for job in _measuring(source, output, facts, start)], root, processes
    )


def _pretraining(method: str, seed: int, source: Path, folder: Path, teacher: Path | None = None) -> Job:
    flags = {"rgb": [], "ema": ["--targets", "rgb", "ema"], "mimic": ["--mimic", f"teacher={teacher}"]}[method]
    epochs = EPOCHS[method]
    command = ("-m", "pretrain", "--model", f"convmae_convvit_{MODEL}", "--data_path", source / "train", *COMMON)
    schedule = ("--epochs", epochs, "--save_epochs", epochs, "--seed", seed, "--output_dir", folder)
    facts = {"method": method, "seed": seed, "epochs": epochs}
    return Job(folder, (*command, *PRETRAIN, *flags, *schedule), lambda _: {}, facts)


def _measuring(source: Path, output: Path, facts: dict[str, Any], start: Path | None) -> list[Job]:
    jobs = []
    for measure, recipe in (("knn", ()), ("linprobe", PROBE)):
        folder = output / f"{facts['method']}_seed{facts['seed']}_{measure}"
        command = ("-m", f"pretrain.{measure}", *classifier_flags(source, folder, start), *recipe)
        wanted = {**facts, "measure": measure, "fraction": 1.0}
        jobs.append(Job(folder, (*command, "--seed", facts["seed"]), Accuracy(measure), wanted))
    return jobs
