"""Kind `annotations`: COCO files with random oddities, trained and evaluated on."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from soaking.cases import Case, Verdict, judge
from soaking.trainings import TRAININGS, lab

__all__ = ["annotations"]

NASTY: tuple[Any, ...] = (
    *(None, True, False, "", "a", "0", "NaN", "\u0000", "ü" * 300, "../../x", "/", "$\\frac$"),
    *(0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 1e-300, 0.5, 4.7e31, 1e308, float("nan"), float("inf"), -float("inf")),
    *([], {}, [[]], [None], [[1, 2]], [[0, 0, 1, 1]], {"counts": [], "size": []}, [[[[[]]]]], [1] * 1000),
    *({"counts": [3, 4], "size": [64, 64]}, {"counts": "abc", "size": [64, 64]}, {"counts": [5, -1], "size": [64, 64]}),
    *({"counts": "\u00ff\u00fe", "size": [64, 64]}, {"counts": [4096], "size": [2**20, 2**20]}, {"size": [64, 64]}),
)
DEEP = "nested too deeply for Python's own encoder"
"""Stands for very many brackets."""

UNUSABLE = (4.7e31, 1e308, float("nan"), float("inf"), -float("inf"), 2**63, 2**64, -(2**70))
"""As a coordinate or a side these must be told of."""


def annotations(case: Case) -> Verdict:
    """Trains and evaluates on an annotation file with one to three oddities."""
    root = lab.shapes
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    changes, must_tell = [], False
    for _ in range(case.rng.choice([1, 1, 1, 2, 3])):
        change, severe = _mutate(case.rng, content)
        changes.append(change)
        must_tell |= severe
    text = json.dumps(content).encode().replace(json.dumps(DEEP).encode(), b"[" * 100_000 + b"]" * 100_000)
    if case.rng.random() < 0.1:
        position = case.rng.randrange(len(text))
        text = text[:position] + case.rng.choice([b"", bytes([case.rng.randrange(256)]) + text[position + 1 :]])
        changes.append(f"the file changed or cut at byte {position}")
    file = case.folder / "mutated.json"
    file.write_bytes(text)
    more = [f"data.{s}_json={file}" for s in ("train", "val")] + [
        f"data.{s}_images={root / 'train'}" for s in ("train", "val")
    ]
    more += ["train.max_iter=2", "train.checkpointer.period=9"]
    output = case.folder / "run"
    ended = TRAININGS["detector"].run(output, *more)
    silent = must_tell and "WARNING" not in ended.output
    shown = f"training and evaluation on annotations with {'; '.join(changes)}"
    return judge(shown, ended, "nothing was said of it" if silent else None)


def _mutate(rng: random.Random, content: dict) -> tuple[str, bool]:
    """Changes one place; returns what was changed, and whether a number there cannot be meant."""
    places = list(_places(content, ""))
    name, container, key = rng.choice(places)
    way = rng.choice(["replace"] * 6 + ["remove", "double", "nest", "swap"])
    if way == "remove":
        del container[key]
        return f"{name} removed", False
    if way == "double" and isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
        return f"{name} doubled", False
    if way == "nest":
        container[key] = rng.choice([[container[key]], [[[container[key]]]], DEEP])
        return f"{name} nested", False
    if way == "swap":
        other, there, index = rng.choice(places)
        container[key] = copy.deepcopy(there[index]) if there is not container else None
        return f"{name} replaced by {other}", False
    value = rng.choice(NASTY)
    container[key] = copy.deepcopy(value)
    geometry = any(part in name for part in (".bbox.", ".segmentation.", ".width", ".height"))
    return f"{name} = {str(value)[:40]!r}", geometry and any(value is entry for entry in UNUSABLE)


def _places(value: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """All values below one, as name, container and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in list(items):
        yield f"{name}.{key}", value, key
        yield from _places(entry, f"{name}.{key}")
