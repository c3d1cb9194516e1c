"""ViTDet's simple feature pyramid for images of any shape."""

from detectron2.modeling import SimpleFeaturePyramid

__all__ = ["FeaturePyramid"]


class FeaturePyramid(SimpleFeaturePyramid):
    """:class:`detectron2.modeling.SimpleFeaturePyramid` (arXiv:2203.16527) that also works with `square_pad=0`.

    Images are then padded to multiples of the coarsest map's stride instead of to a square; detectron2's class
    announces that stride under a misspelt name, so nothing is padded and the backbone refuses most images.
    """

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"size_divisibility": self._size_divisibility, "square_size": self._square_pad}
