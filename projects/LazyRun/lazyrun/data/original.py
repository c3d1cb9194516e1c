"""Test samples with the pixels of their file, for what looks at parts of an image."""

from collections.abc import Callable

from lazyrun.data.images import read_image

__all__ = ["ORIGINAL", "WithOriginal"]

ORIGINAL = "original"
"""Key of the pixels in a model's input: uint8 `(H, W, 3)`, channels in the order that the model takes."""


class WithOriginal:
    """A mapper that adds the pixels of images larger than some size.

    Args:
        mapper: from a data set's dict to the model's input.
        image_format: order of the channels, as the mapper's.
        larger_than: pixels of the longer side.
    """

    def __init__(self, mapper: Callable[[dict], dict | None], image_format: str, larger_than: int):
        self.mapper, self.image_format, self.larger_than = mapper, image_format, larger_than

    def __call__(self, sample: dict) -> dict | None:
        """What the mapper gives, and :data:`ORIGINAL`.

        Raises:
            CorruptImageError: the file cannot be read.
        """
        mapped = self.mapper(sample)
        if mapped is None or max(mapped["height"], mapped["width"]) <= self.larger_than:
            return mapped
        return {**mapped, ORIGINAL: read_image(sample["file_name"], self.image_format)}
