"""Smaller ONNX files of one model, without a second export, which would take as long as the first."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import pictures

from lazyrun.onnx_runner import OnnxModel
from lazyrun.onnx_runner.metadata import Metadata

WAYS = {"fp16": ("fp16", False), "int8": ("int8", False), "int8 with calibration": ("int8", True)}
"""By name: the precision, and whether images are given."""


@contextmanager
def from_file(full: Path) -> Iterator[None]:
    """Every export takes this float32 file for what the exporter would give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lazyrun.export.smaller.write_onnx", lambda form, path: shutil.copy(full, path))
        yield


def save_pictures(folder: Path, count: int = 8) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for path, picture in zip(paths, pictures(count), strict=True):
        Image.fromarray(picture).save(path)
    return paths


def check_smaller_files(full: Path, images: list[Path], export: Callable[..., Metadata]) -> Iterator[tuple[str, Path]]:
    """Writes and reads a file in each of the :data:`WAYS`, and yields the way and the file.

    Args:
        full: the float32 file.
        images: what ranges are taken from.
        export: called with path, precision and calibration images.
    """
    for way, (precision, calibrated) in WAYS.items():
        path = full.with_name(f"{way}.onnx")
        with from_file(full):
            metadata = export(path, precision=precision, calibration=images if calibrated else None)
        assert metadata == OnnxModel(path).metadata and metadata.calibration_images == calibrated * len(images)
        assert not list(full.parent.glob(".*")), "temporary files are left"
        yield way, path
