"""The training and test images of the ADE20K recipe, with OpenCV as in the published training.

detectron2 has the random crop and the flip of the recipe; what it, torchvision and kornia have instead of the following
differs: detectron2 resizes with Pillow, which smooths when it shrinks, to a box that does not turn with the image, and
pads with one number; torchvision's `RandomPhotometricDistort` multiplies the brightness instead of shifting it.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T

from convmae_seg.label_maps import IGNORED
from pretrain.common.errors import UserError

__all__ = ["PadToSize", "PhotometricDistortion", "ResizeKeepRatio"]


class ResizeKeepRatio(T.Augmentation):
    """Resizes an image so that its short edge is `short_edge`, or its long edge `aspect` times that if this is less.

    With the defaults and `short_edge=512` this is the "(2048, 512) keeping the ratio" of the recipe.

    Args:
        short_edge: in pixels.
        aspect: longest allowed long edge, in units of `short_edge`, at least 1.
        scale_range: both edges are multiplied by a factor drawn from here.
        enlarge: False leaves smaller images as they are.

    Raises:
        UserError: one of the edges is none.
    """

    def __init__(
        self,
        short_edge: int,
        aspect: float = 4.0,
        scale_range: Sequence[float] = (1.0, 1.0),
        enlarge: bool = True,
    ):
        super().__init__()
        if not (1 <= short_edge < math.inf and 1 <= aspect < math.inf):
            raise UserError(f"short_edge={short_edge} and aspect={aspect} must be numbers of at least 1.")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        low, high = self.scale_range
        factor = np.random.uniform(low, high) if high > low else low
        # Whole pixels, as in the published training.
        short_edge, long_edge = int(self.short_edge * factor), int(self.short_edge * self.aspect * factor)
        height, width = image.shape[:2]
        scale = min(long_edge / max(height, width), short_edge / min(height, width))
        if scale >= 1 and not self.enlarge:
            return T.NoOpTransform()
        return _Resize(height, width, max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))

    def export_step(self) -> dict:
        """What it does, for :mod:`lazyrun.onnx_runner.images`.

        Raises:
            UserError: it draws the size.
        """
        low, high = self.scale_range
        if (low, high) != (1.0, 1.0):
            raise UserError(f"A random size cannot be exported: scale_range={[low, high]} of the test transform.")
        return {
            "step": "keep_ratio",
            "short_edge": self.short_edge,
            "aspect": self.aspect,
            "enlarge": self.enlarge,
        }


class _Resize(T.Transform):
    """Bilinear without smoothing for images, nearest for label maps, as OpenCV computes them."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        # OpenCV has no int64.
        resized = cv2.resize(segmentation.astype(np.uint8), (self.new_w, self.new_h), interpolation=cv2.INTER_NEAREST)
        return resized.astype(segmentation.dtype)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords * (self.new_w / self.w, self.new_h / self.h)

    def inverse(self) -> T.Transform:
        return _Resize(self.new_h, self.new_w, self.h, self.w)


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation and hue, each with probability 1/2 (SSD, arXiv:1512.02325).

    Contrast comes before saturation and hue, or after them, at random. After every change values are cut to whole
    numbers in [0, 255], as in the published training.

    Args:
        brightness: largest shift, in pixel values.
        contrast, saturation: ranges of factors.
        hue: largest shift, in half degrees.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: int = 18,
    ):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        changes = []
        if _coin():
            shift = np.random.uniform(-self.brightness, self.brightness)
            changes.append(lambda pixels: _linear(pixels, shift=shift))
        contrast_first, contrast = _coin(), []
        if _coin():
            factor = np.random.uniform(*self.contrast)
            contrast.append(lambda pixels: _linear(pixels, factor=factor))
        color = []
        if _coin():
            saturation = np.random.uniform(*self.saturation)
            color.append(lambda pixels: _saturate(pixels, saturation))
        if _coin():
            turn = np.random.randint(-self.hue, self.hue)
            color.append(lambda pixels: _turn_hue(pixels, turn))
        changes += contrast + color if contrast_first else color + contrast
        return T.ColorTransform(lambda pixels: _apply(changes, pixels))


def _coin() -> bool:
    return bool(np.random.randint(2))


def _apply(changes: Sequence[Callable[[np.ndarray], np.ndarray]], pixels: np.ndarray) -> np.ndarray:
    for change in changes:
        pixels = change(pixels)
    return pixels


def _linear(pixels: np.ndarray, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.clip(pixels.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)


def _saturate(rgb: np.ndarray, factor: float) -> np.ndarray:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = _linear(hsv[..., 1], factor=factor)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _turn_hue(rgb: np.ndarray, half_degrees: int) -> np.ndarray:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + half_degrees) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


class PadToSize(T.Augmentation):
    """Pads images at the right and bottom to a square, with what the model normalises to 0, and label maps with 255.

    Args:
        size: side in pixels.
        pixel_mean: the model's, by channel; a padded image becomes float32 to hold it exactly.
    """

    def __init__(self, size: int, pixel_mean: Sequence[float]):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        if height >= self.size and width >= self.size:
            return T.NoOpTransform()
        return _Pad(height, width, max(height, self.size), max(width, self.size), tuple(self.pixel_mean))


class _Pad(T.Transform):
    def __init__(self, h: int, w: int, new_h: int, new_w: int, fill: Sequence[float]):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        padded = np.empty((self.new_h, self.new_w, img.shape[2]), np.float32)
        padded[:] = self.fill
        padded[: self.h, : self.w] = img
        return padded

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        below_and_right = ((0, self.new_h - self.h), (0, self.new_w - self.w))
        return np.pad(segmentation, below_and_right, constant_values=IGNORED)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def inverse(self) -> T.Transform:
        return T.CropTransform(0, 0, self.w, self.h)
