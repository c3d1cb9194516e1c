"""Which images and videos a prediction is asked for."""

import glob
from collections.abc import Sequence
from pathlib import Path

from pretrain.common.errors import UserError
from pretrain.common.images import IMAGE_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "find_images", "is_video"]

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}


def is_video(name: str) -> bool:
    """Whether a name is that of a video file, by its suffix."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def find_images(inputs: Sequence[str], leave_out: Path) -> list[Path]:
    """Files that the inputs name, in a fixed order, each once.

    Args:
        inputs: files, folders (all images in them and below), or patterns such as "photos/**/*.jpg".
        leave_out: folder whose files are not taken from folders or for patterns, such as that of the output.

    Raises:
        UserError: an input names nothing.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            # Dead links and pipes are told of when they cannot be read.
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
            if not files:
                raise UserError(f"Folder {name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
            files = _outside(leave_out, files)
        else:
            files = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())
            if not files:
                raise UserError(
                    f"Pattern {name} matches no file." if glob.has_magic(name) else f"{name} does not exist."
                )
            files = _outside(leave_out, files)
        found |= dict.fromkeys(files)
    if not found:
        raise UserError(f"No images to predict besides those in the output folder {leave_out}.")
    return list(found)


def _outside(folder: Path, files: Sequence[Path]) -> list[Path]:
    return [p for p in files if folder.resolve() not in p.resolve().parents]
