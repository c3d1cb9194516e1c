"""HTML pages that need no other file: templates, and pictures put into them."""

import base64
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from lazyrun.viz.pictures import encode_picture
from pretrain.common.files import replacing

__all__ = ["data_uri", "jpeg", "themed_picture", "write_page"]

PAGE_WIDTH = 1400
"""Widest embedded picture, in pixels."""

JPEG_QUALITY = 85


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fills in a template of this package and writes the page; text is escaped.

    Raises:
        OSError: it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template(template).render(picture=themed_picture, **values)
    with replacing(path) as temporary:
        # File names that are no UTF-8 have halves of characters in them.
        temporary.write_bytes(page.encode("utf-8", errors="backslashreplace"))


def jpeg(picture: np.ndarray) -> bytes:
    """BGR uint8 `(H, W, 3)` as JPEG, reduced to the page's width."""
    height, width = picture.shape[:2]
    if width > PAGE_WIDTH:
        size = (PAGE_WIDTH, max(1, round(height * PAGE_WIDTH / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return encode_picture(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def data_uri(content: bytes, kind: str) -> str:
    """A file as an address of its own, such as `data:image/jpeg;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def themed_picture(chart: dict[str, bytes], text: str) -> Markup:
    """A chart that follows the reader's light or dark theme, both as PNG."""
    light, dark = (data_uri(chart[theme], "image/png") for theme in ("light", "dark"))
    return Markup(
        '<picture><source media="(prefers-color-scheme: dark)" srcset="{}"><img alt="{}" src="{}"></picture>'
    ).format(dark, text, light)
