"""Kind `images`: files that are no images, or only in part, among those of a data set."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from shapes import REPO

from soaking.cases import Case, Verdict, judge
from soaking.sandbox import run
from soaking.trainings import COMMANDS, TRAININGS, lab

__all__ = ["images"]

Damage = Callable[[random.Random, Path, bytes], object]


def images(case: Case) -> Verdict:
    """Damages one image, then trains on all of them, or predicts them."""
    what = case.rng.choice(["pretrain", "finetune", "detector", "segmentation", "predict"])
    source = lab.root / ("images" if what in ("pretrain", "finetune") else "shapes")
    data = case.folder / source.name
    shutil.copytree(source, data)
    chosen = case.rng.choice(sorted(path for path in (data / "train").rglob("*") if path.is_file()))
    damage = _damage(case.rng, chosen)
    shown = f"{what} with {chosen.name} damaged: {damage}"
    ended = run(_command(what, data, case.folder / "run"), cwd=REPO)
    told = chosen.name in ended.output or chosen.stem in ended.output
    unseen = what == "predict" and chosen.is_dir()  # a folder is looked into
    return judge(shown, ended, None if told or unseen or _can_be_read(chosen) else f"{chosen.name} was never named")


def _command(what: str, data: Path, output: Path) -> Callable[[], object]:
    if what == "predict":
        whole, _ = lab.whole("detector")
        config = ["--config-file", str(whole / "config.yaml"), "--weights", str(whole / "model_final.pth")]
        argv = [*config, "--device", "cpu", "--input", str(data / "train"), "--output", str(output)]
        return lambda: COMMANDS["python tools/predict.py"](argv)
    training = TRAININGS[what]
    if what in ("pretrain", "finetune"):
        lab.whole("pretrain")
        lab.whole("finetune")
        argv = training.argv(output, "--data_path", str(data), "--max_corrupt", "0.9")
    else:
        kind, below = ("json", "annotations/instances_{}.json") if what == "detector" else ("labels", "labels/{}")
        more = [f"data.{s}_images={data / s}" for s in ("train", "val")]
        more += [f"data.{s}_{kind}={data / below.format(s)}" for s in ("train", "val")]
        if what == "segmentation":
            names = data / "classes.txt"
            names.write_text("background\ncircle\nsquare\ntriangle\nstar\n")
            more += [f"data.class_names={names}", "data.ignore_label=255"]
        argv = training.argv(output, *more, "data.max_corrupt=0.9", "train.max_iter=3")
    return lambda: COMMANDS[training.command](argv)


def _damage(rng: random.Random, path: Path) -> str:
    """Damages a file; returns how."""
    way = rng.choice(sorted(DAMAGES))
    content = path.read_bytes()
    path.unlink()
    DAMAGES[way](rng, path, content)
    return way


def _flip(rng: random.Random, path: Path, content: bytes) -> None:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 5, 50])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    path.write_bytes(changed)


def _draw(mode: str, size: tuple[int, int] | None = None) -> Damage:
    def damage(rng: random.Random, path: Path, content: bytes) -> None:
        Image.new(mode, size or (rng.randrange(1, 90), rng.randrange(1, 90))).save(path, "PNG")

    return damage


DAMAGES: dict[str, Damage] = {
    "cut off": lambda rng, path, content: path.write_bytes(content[: rng.randrange(len(content))]),
    "flipped bits": _flip,
    "empty": lambda rng, path, content: path.write_bytes(b""),
    "text": lambda rng, path, content: path.write_bytes(b"no image\n"),
    "noise": lambda rng, path, content: path.write_bytes(rng.randbytes(2000)),
    "header alone": lambda rng, path, content: path.write_bytes(content[:30]),
    "a folder": lambda rng, path, content: path.mkdir(),
    "a dead link": lambda rng, path, content: path.symlink_to("nothing"),
    "a pipe": lambda rng, path, content: os.mkfifo(path),
    "another size": _draw("RGB"),
    "a palette": _draw("P"),
    "black and white": _draw("1"),
    "16 bits": _draw("I;16"),
    "with transparency": _draw("RGBA"),
    "very wide": _draw("RGB", (9000, 1)),
}


def _can_be_read(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:
        return False
    return True
