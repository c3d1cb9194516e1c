"""Kinds `flags` and `overrides`: nonsense in place of single arguments of the commands."""

import re
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from shapes import REPO

from soaking.cases import Case, Verdict, judge
from soaking.sandbox import Limits, run
from soaking.trainings import COMMANDS, TRAININGS, lab

__all__ = ["flags", "overrides"]

NONSENSE = (
    *("", "nan", "inf", "-inf", "-1", "0", "1", "1e300", "1e-300", "1e5", "99999999999999999999", "-7.5", "0x10"),
    *("abc", "none", "null", "true", "/dev/null", "/dev/zero", ".", "../x", "/", "ü💥", "a\nb", "%s%n", "$\\frac$"),
    *("[1,2", "[]", "{}", "[1]", "{a: 1}", "${foo}", "${", "a" * 300, "2024", "1e3", "--", "--seed", "os.system"),
)
OVERRIDE_VALUES = (*NONSENSE, "[nan]", "[[[]]]", "{_target_: os.system}", "???", "${train}", "${oc.env:HOME}", "'1'")
LEFT_OUT = ("num_workers", "num-gpus", "num-machines", "processes", "threads", "dist-url", "machine-rank", "traceback")
"""Options that start as many processes as they say, or wait for them, and the one that asks for tracebacks."""


def flags(case: Case) -> Verdict:
    """Runs a command with one or two options of nonsense."""
    command, argv = case.rng.choice(_sound_commands(case.folder))
    for _ in range(case.rng.choice([1, 1, 2])):
        option = case.rng.choice([name for name in _options(command) if name.strip("-") not in LEFT_OUT])
        argv = (
            [option, case.rng.choice(NONSENSE), *argv]
            if "tools" in command
            else [*argv, option, case.rng.choice(NONSENSE)]
        )
    ended = run(lambda: COMMANDS[command](argv), Limits(seconds=20, silent=15), cwd=_inner(case.folder))
    return judge(f"{command} {argv}", ended)


def overrides(case: Case) -> Verdict:
    """Rehearses or begins a training with one or two overrides of nonsense."""
    name = case.rng.choice(["detector", "segmentation"])
    chosen = [
        f"{case.rng.choice(_keys(name))}={case.rng.choice(OVERRIDE_VALUES)}" for _ in range(case.rng.choice([1, 1, 2]))
    ]
    whole = case.rng.random() < 0.4
    more = [*(["train.max_iter=1"] if whole else ["--dry-run"]), *chosen]
    training, output = TRAININGS[name], case.folder / "run"
    argv = [part.replace("projects/", f"{REPO}/projects/") for part in training.argv(output, *more)]
    command = COMMANDS[training.command]
    ended = run(lambda: command(argv), Limits(seconds=20, silent=15), cwd=_inner(case.folder))
    return judge(f"{training.command} {' '.join(more)} ({name})", ended)


def _inner(folder: Path) -> Path:
    """A folder from which `../x` is still within the case's."""
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    return inner


def _sound_commands(folder: Path) -> list[tuple[str, list[str]]]:
    """Commands with arguments that they would run with, for a step or two."""
    output = folder / "out"
    whole = {name: lab.whole(name)[0] for name in TRAININGS}
    classifier = ["--model", "convvit_tiny_patch8_32", "--data_path", str(lab.root / "images"), "--device", "cpu"]
    encoder, detector = str(whole["pretrain"] / "encoder.pth"), whole["detector"]
    config = ["--config-file", str(detector / "config.yaml")]
    checkpoint = str(max(whole["pretrain"].glob("checkpoint-*.pth")))
    images = str(lab.shapes / "val")
    steps = {
        TRAININGS[n].command: TRAININGS[n].argv(output, "--max_steps", "1")
        for n in ("pretrain", "finetune", "linprobe")
    }
    rehearsal = ["--dry-run", "--num-gpus", "0", *config, f"train.output_dir={output}"]
    others = {
        "python -m pretrain.knn": [*classifier, "--init_weights", encoder, "--output_dir", str(output), "--k", "2"],
        "python -m pretrain.visualize": ["--checkpoint", checkpoint, "--images", images, "--output", f"{output}.png"],
        "python tools/lazyconfig_train_net.py": rehearsal,
        "python tools/predict.py": [
            *(*config, "--weights", str(detector / "model_final.pth"), "--input", images, "--output", str(output)),
        ],
        "python tools/convert_checkpoint.py": [encoder, f"{output}.pth"],
        "python tools/visualize_data.py": [*config, "--output", str(output), "--count", "2"],
        "python tools/analyze_model.py": [*config, "--size", "64"],
    }
    return sorted((steps | others).items())


@cache
def _options(command: str) -> list[str]:
    text = run(lambda: COMMANDS[command](["--help"])).output
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - {"--help"})


@cache
def _keys(name: str) -> list[str]:
    """All keys of a run's config, nodes as well as values."""
    cfg = OmegaConf.create(_plain(lab.whole(name)[0] / "config.yaml"), flags={"allow_objects": True})
    found: list[str] = []
    waiting: list[tuple[str, object]] = [("", cfg)]
    while waiting:
        prefix, node = waiting.pop()
        for key in node if isinstance(node, DictConfig) else range(len(node)) if isinstance(node, ListConfig) else ():
            full = f"{prefix}.{key}".lstrip(".")
            found.append(full)
            if not OmegaConf.is_interpolation(node, key) and OmegaConf.is_config(node[key]):
                waiting.append((full, node[key]))
    return sorted(found)


def _plain(path: Path) -> object:
    from lazyrun.config.loading import load_config

    return load_config(str(path))
