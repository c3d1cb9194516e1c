"""Kind `checkpoints`: damaged files, given to all that read them."""

import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from shapes import REPO

from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint, save_weights
from pretrain.common.tensors import named_tensors
from soaking.cases import Case, Verdict, judge
from soaking.kills import comparable, difference
from soaking.sandbox import run
from soaking.trainings import COMMANDS, TRAININGS, lab

__all__ = ["checkpoints"]

Damage = Callable[[random.Random, Path, Path], None]


def checkpoints(case: Case) -> Verdict:
    """Damages a file of a run, and reads it, begins from it, or resumes the run that holds it."""
    damage = case.rng.choice(sorted(DAMAGES))
    name = case.rng.choice(sorted(TRAININGS))
    whole, _ = lab.whole(name)
    if case.rng.random() < 0.3:
        return _resumed(case, name, whole, damage)
    source = whole / case.rng.choice(TRAININGS[name].weights)
    if case.rng.random() < 0.2:
        source = _as_safetensors(source, case.folder)
    damaged = case.folder / f"damaged{source.suffix}"
    DAMAGES[damage](case.rng, source, damaged)
    readers = _readers(name, damaged, case.folder, whole)
    shown, argv = case.rng.choice(readers) if readers and case.rng.random() < 0.4 else ("load_checkpoint", None)
    what = f"{shown} of {source.name} of {name}, damage: {damage}"
    if argv is None:
        return judge(what, run(lambda: _read(damaged)), _accepted(source, damaged, damage))
    return judge(what, run(lambda: COMMANDS[shown](argv), cwd=REPO), _accepted(source, damaged, damage))


def _accepted(source: Path, damaged: Path, damage: str) -> str | None:
    """Why the file must not be read; None if what is in it is as it was."""
    if damage in NOT_FINITE:
        return f"{damage} was read"
    same = run(lambda: _compare(source, damaged))
    return "its contents differ from those before the damage" if same.code == 3 else None


def _read(path: Path) -> None:
    try:
        load_checkpoint(path)
    except (UserError, OSError) as e:
        sys.exit(f"error: {e}")


def _compare(source: Path, damaged: Path) -> None:
    """Exit code 3 if both can be read and differ."""
    try:
        found = load_checkpoint(damaged)
    except (UserError, OSError):
        return
    sys.exit(0 if comparable(found) == comparable(load_checkpoint(source)) else 3)


def _resumed(case: Case, name: str, whole: Path, damage: str) -> Verdict:
    """The newest checkpoint of a run that still has to end is damaged: it goes on from an earlier one."""
    training, output = TRAININGS[name], case.folder / "run"
    shutil.copytree(whole, output, ignore=shutil.ignore_patterns("model_final*", "finished"))
    pattern = "model_0*.pth" if training.is_lazy else "checkpoint-*.pth"
    newest = max(output.glob(pattern))
    DAMAGES[damage](case.rng, whole / newest.name, newest)
    if training.is_lazy:
        (output / "last_checkpoint").write_text(newest.name)
    shown = f"{name}, resumed with the damage: {damage} in {newest.name}"
    ended = training.run(output, resume=True)
    verdict = judge(shown, ended)
    if verdict.fault:
        return verdict
    if ended.code:
        return Verdict(shown, "dead end", ended.sentence)
    wrong = difference(whole, output)
    return Verdict(shown, "accepted" if damage in NOT_FINITE else "inexact", wrong) if wrong else Verdict(shown)


def _readers(name: str, damaged: Path, folder: Path, whole: Path) -> list[tuple[str, Sequence[str]]]:
    """Commands, with their arguments, that begin from the file."""
    lazy = "python tools/lazyconfig_train_net.py"
    output = folder / "out"
    if name == "video":
        return []
    if name in ("pretrain", "mixture"):
        finetune = TRAININGS["finetune"].argv(output, "--max_steps", "1", "--init_weights", str(damaged))
        start = TRAININGS["detector"].argv(output, "--dry-run", f"train.init_checkpoint={damaged}")
        convert = [str(damaged), str(folder / "converted.pth")]
        return [
            ("python -m pretrain.finetune", finetune),
            (lazy, start),
            ("python tools/convert_checkpoint.py", convert),
        ]
    if name in ("finetune", "linprobe"):
        evaluate = ["--eval", "--init_weights", str(damaged)]
        return [("python -m pretrain.finetune", TRAININGS["finetune"].argv(output, *evaluate))]
    evaluate = TRAININGS[name].argv(output, "--eval-only", f"train.init_checkpoint={damaged}")
    images = str(lab.shapes / "val")
    config = ["--config-file", str(whole / "config.yaml"), "--weights", str(damaged), "--device", "cpu"]
    predict = [*config, "--input", images, "--output", str(output)]
    return [(lazy, evaluate), ("python tools/predict.py", predict)]


def _as_safetensors(source: Path, folder: Path) -> Path:
    path = folder / "sound.safetensors"
    save_weights(load_checkpoint(source)["model"], path)
    return path


def _flip(rng: random.Random, source: Path, target: Path) -> None:
    content = bytearray(source.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    target.write_bytes(content)


def _cut(rng: random.Random, source: Path, target: Path) -> None:
    content = source.read_bytes()
    target.write_bytes(content[: rng.randrange(1, len(content))])


def _overwrite(rng: random.Random, source: Path, target: Path) -> None:
    """A block of zeros, as file systems leave after a power failure."""
    content = bytearray(source.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    target.write_bytes(content)


def _empty(rng: random.Random, source: Path, target: Path) -> None:
    target.write_bytes(b"")


def _another(rng: random.Random, source: Path, target: Path) -> None:
    """A file of another kind under this name."""
    others = [b"PK\x03\x04", b"\x89PNG\r\n\x1a\n" + bytes(100), b'{"model": {}}', bytes(5000), rng.randbytes(3000)]
    target.write_bytes(rng.choice(others))


def _recompress(rng: random.Random, source: Path, target: Path) -> None:
    if source.suffix == ".safetensors":
        return _cut(rng, source, target)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))


def _spoil(value: float) -> Damage:
    def damage(rng: random.Random, source: Path, target: Path) -> None:
        content = load_checkpoint(source)
        if source.suffix == ".safetensors":
            content = {"model": content}
        tensors = [t for _, t in named_tensors(content) if t.is_floating_point() and t.numel()]
        tensor = rng.choice(tensors).detach()
        tensor[torch.unravel_index(torch.tensor(rng.randrange(tensor.numel())), tensor.shape)] = value
        if source.suffix == ".safetensors":
            save_weights(content["model"], target)
        else:
            torch.save(content, target)

    return damage


NOT_FINITE = {"NaN in a tensor": _spoil(float("nan")), "infinity in a tensor": _spoil(float("inf"))}
DAMAGES: dict[str, Damage] = NOT_FINITE | {
    "flipped bit": _flip,
    "cut off": _cut,
    "a block of zeros": _overwrite,
    "empty": _empty,
    "another file": _another,
    "compressed again": _recompress,
}
