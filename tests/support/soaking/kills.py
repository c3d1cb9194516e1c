"""Kinds `kills` and `full-disk`: a training that is killed, or cannot write, and then resumed to its end."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pretrain.common.files import load_checkpoint
from soaking.cases import Case, Verdict
from soaking.sandbox import Ended, Limits
from soaking.trainings import TRAININGS, lab

__all__ = ["comparable", "difference", "full_disk", "judge_resumed", "kills"]

MOST_KILLS = 3
VOLATILE = {"args", "seconds", "eta_seconds", "time", "data_time", "max_mem_mb", "rank_data_time"}
VOLATILE |= {"peak_memory_mb", "images_per_second"}
"""Keys whose values differ between two uninterrupted runs, or tell how a run was started."""

EVALUATED = re.compile(r"(ema/)?(bbox|segm|sem_seg)/")
"""Metrics in metrics.json; the other numbers there are medians over iterations, of which a resumed run knows fewer."""

UNCOMPARED = ("log.txt", "config.yaml", "args.json", "sem_seg_evaluation.pth")
"""The last one is detectron2's, a pickle of the numbers that are in metrics.json."""


def kills(case: Case) -> Verdict:
    """Kills a training up to three times, at random and aimed moments, and compares its end with the whole run's."""
    name = case.rng.choice(sorted(TRAININGS))
    folder, whole = lab.whole(name)
    output, moments = case.folder / "run", []
    for kill in range(case.rng.randint(1, MOST_KILLS)):
        limits, moment = _kill(case, whole, output)
        moments.append(moment)
        ended = TRAININGS[name].run(output, resume=kill > 0, limits=limits)
        if ended.code is None or ended.code >= 0:
            if fault := _bad_end(ended):
                return Verdict(f"{name}, killed {moments}", fault, ended.sentence)
            break  # it had ended before its time
    return _resume(name, folder, output, f"killed {' and '.join(moments)}")


def full_disk(case: Case) -> Verdict:
    """Lets a training's files grow to a few bytes only, then resumes it with room."""
    name = case.rng.choice(sorted(TRAININGS))
    folder, _ = lab.whole(name)
    largest = max(path.stat().st_size for path in folder.iterdir())
    size = case.rng.choice([0, 1, case.rng.randrange(5000), case.rng.randrange(largest)])
    output = case.folder / "run"
    ended = TRAININGS[name].run(output, limits=Limits(file_size=size))
    if fault := _bad_end(ended):
        return Verdict(f"{name} on a disk of {size} bytes a file", fault, ended.sentence)
    if ended.code == 0 and (wrong := difference(folder, output)):
        return Verdict(f"{name} on a disk of {size} bytes a file", "accepted", wrong)
    return _resume(name, folder, output, f"on a disk of {size} bytes a file")


def _kill(case: Case, whole: Ended, output: Path) -> tuple[Limits, str]:
    limits = Limits(folder=output)
    way = case.rng.choice(["change", "change", "bytes", "time"])
    if way == "change":
        number = case.rng.randint(1, whole.changes)
        return replace(limits, kill_at=number), f"before change {number} of {whole.changes} to its files"
    if way == "bytes":
        size = case.rng.randrange(100_000)
        return replace(limits, kill_in_file=size), f"at byte {size} of a file"
    seconds = case.rng.random() * whole.seconds
    return replace(limits, kill_after=seconds), f"after {seconds:.2f} s"


def _bad_end(ended: Ended) -> str | None:
    if ended.code == 99:
        raise RuntimeError(f"the soak could not begin: {ended.output}")
    return ended.fault


def _resume(name: str, whole: Path, output: Path, what: str) -> Verdict:
    ended = TRAININGS[name].run(output, resume=True)
    return judge_resumed(f"{name}, resumed after it was {what}", ended, whole, output)


def judge_resumed(shown: str, ended: Ended, whole: Path, output: Path) -> Verdict:
    """The verdict on a resumed run, whose folder must be as that of the whole one."""
    if fault := _bad_end(ended):
        return Verdict(shown, fault, ended.sentence)
    if ended.code:
        return Verdict(shown, "dead end", ended.sentence)
    if wrong := difference(whole, output):
        return Verdict(shown, "dead end" if "missing" in wrong else "inexact", wrong)
    return Verdict(shown)


def difference(whole: Path, resumed: Path) -> str | None:
    """What a resumed run's folder lacks, has too much of, or has otherwise than the whole run's; None if nothing."""
    for path in sorted(whole.rglob("*")):
        other = resumed / path.relative_to(whole)
        if path.is_dir() or path.name.startswith(("events.", *UNCOMPARED)):
            continue
        if not other.is_file():
            return f"{path.name} is missing"
        if path.name == "metrics.json":
            if name := _other_metric(_metrics(path), _metrics(other)):
                return f"{name} differs"
        elif _content(path) != _content(other):
            return f"{path.name} differs"
    left = [path.name for path in sorted(resumed.rglob("*")) if path.name.startswith(".") or ".tmp" in path.name]
    return f"{left[0]} is left over" if left else None


def _content(path: Path) -> Any:
    """What must be the same in both, comparable with `==`."""
    if path.suffix == ".pth":
        return comparable(load_checkpoint(path))
    if path.suffix in (".json", ".jsonl"):
        return [comparable(json.loads(line)) for line in _documents(path)]
    return path.read_bytes()


def _documents(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def _metrics(path: Path) -> dict[int, dict]:
    """What was measured at each iteration; a resumed run may tell an iteration twice."""
    merged: dict[int, dict] = {}
    for line in path.read_text().splitlines():
        values = json.loads(line)
        merged.setdefault(values["iteration"], {}).update(comparable(values))
    return merged


def _other_metric(whole: dict[int, dict], resumed: dict[int, dict]) -> str | None:
    """A metric of an evaluation that is another one, or missing."""
    for iteration, values in whole.items():
        for name, value in values.items():
            if EVALUATED.match(name) and resumed.get(iteration, {}).get(name) != value:
                return f"{name} of iteration {iteration}"
    return None


def comparable(content: Any) -> Any:
    """A content of files in types whose `==` compares bits."""
    if isinstance(content, torch.Tensor):
        return (
            str(content.dtype),
            tuple(content.shape),
            content.contiguous().flatten().view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(content, Mapping):
        return {key: comparable(value) for key, value in content.items() if key not in VOLATILE}
    if isinstance(content, list | tuple):
        return [comparable(value) for value in content]
    return repr(content) if isinstance(content, float) else content
