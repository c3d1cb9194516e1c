"""Pictures as files. OpenCV's `imwrite` tells only by its result that a disk is full, and is nowhere used."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pretrain.common.temporary import replacing

__all__ = ["encode_picture", "write_picture"]


def encode_picture(suffix: str, image: np.ndarray, options: Sequence[int] = ()) -> bytes:
    """The file of a picture, as :func:`cv2.imwrite` would write it.

    Args:
        suffix: of the format, such as `.png`.
        image: BGR uint8 `(H, W, 3)`, or grey `(H, W)`.
        options: pairs of OpenCV's numbers and values, such as `cv2.IMWRITE_JPEG_QUALITY, 95`.

    Raises:
        OSError: the format cannot hold it.
    """
    try:
        encoded, content = cv2.imencode(suffix, image, list(options))
    except cv2.error as e:
        raise OSError(f"A picture of shape {image.shape} cannot become {suffix}: {e}") from e
    if not encoded:
        raise OSError(f"A picture of shape {image.shape} cannot become {suffix}.")
    return content.tobytes()


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes RGB uint8 `(H, W, 3)` as PNG or JPEG, by the suffix.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(encode_picture(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))
