"""Small pictures, and tar files of them in the layouts that are read."""

import io
import json
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


@cache
def pictures() -> dict[str, bytes]:
    """Content by name, not in the order of the names."""
    generator, files = np.random.default_rng(0), {}
    for i in range(12):
        kind, suffix = ("JPEG", "jpg") if i % 3 else ("PNG", "png")
        with io.BytesIO() as file:
            Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file, kind)
            files[f"{i * 7 % 12}.{suffix}"] = file.getvalue()
    return files


def class_of(name: str) -> str:
    return CLASSES[int(name.partition(".")[0]) % 3]


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(files.items()))
    return path


def with_labels(name: str, content: bytes, kind: str) -> dict[str, bytes]:
    """A sample of WebDataset's."""
    key, label = name.partition(".")[0], class_of(name)
    text = label + "\n" if kind == "cls" else json.dumps({"label": label, "url": "…"})
    return {f"{key}.{kind}": text.encode(), name: content}


def shards(folder: Path, files: dict[str, bytes], size: int = 4, kind: str | None = "cls") -> Path:
    """Writes tar files of so many images each."""
    names = list(files)
    for i in range(0, len(names), size):
        samples = {name: files[name] for name in names[i : i + size]}
        if kind:
            samples = {k: v for name, content in samples.items() for k, v in with_labels(name, content, kind).items()}
        write_tar(folder / f"part-{i // size:06d}.tar", samples)
    return folder
