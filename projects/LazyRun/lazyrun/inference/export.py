"""Exported parts: backbone and pyramid as `torch.export` or ONNX files, and whole detectors as TorchScript traces.

Whole models are written by :mod:`lazyrun.export`.

Every file is compared with the model it was made from before it gets its name. Models are exported in evaluation mode
and without gradients, where layers that recompute activations are plain operators.
"""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.export import TracingAdapter
from torch import nn
from torch.export import Dim, ExportedProgram

from pretrain.common.errors import UserError
from pretrain.common.files import replacing
from pretrain.common.onnx_files import check_onnx_packages, onnx_program, onnx_session

__all__ = ["PixelPyramid", "export_backbone", "export_detector", "size_divisor"]

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest accepted deviation of an exported model, relative to the largest value of each output."""


class PixelPyramid(nn.Module):
    """Backbone and pyramid of a detector behind its normalisation of pixels: what is exported.

    Args:
        detector: a model with `backbone`, `pixel_mean` and `pixel_std`, such as :class:`GeneralizedRCNN`.

    Attributes:
        names: of the outputs, in their order, such as `p2 p3 p4 p5 p6`.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor
    backbone: Any  # detectron2's, whose methods nn.Module's types do not know

    def __init__(self, detector: Any):
        super().__init__()
        self.backbone = detector.backbone
        self.register_buffer("pixel_mean", detector.pixel_mean.clone())
        self.register_buffer("pixel_std", detector.pixel_std.clone())
        self.names = list(self.backbone.output_shape())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images float32 `(B, 3, H, W)` in [0, 255], in the channel order of the config, to one map for each level."""
        features = self.backbone((images - self.pixel_mean) / self.pixel_std)
        return tuple(features[name] for name in self.names)


def size_divisor(backbone: Any) -> int:
    """What both sides of an image must be divisible by, in pixels: for the trunk and for the coarsest level."""
    trunk = getattr(getattr(backbone, "net", None), "stride", 1)
    return math.lcm(trunk, max(1, backbone.size_divisibility))


def export_backbone(model: PixelPyramid, path: Path, size: Sequence[int], *, dynamic: bool = False) -> float:
    """Writes backbone and pyramid as `.pt2` (`torch.export`) or `.onnx`; the batch size stays free.

    Args:
        model: on the CPU; put in evaluation mode.
        path: file to write; the suffix decides the format.
        size: height and width in pixels.
        dynamic: leave height and width free, from one attention window upwards.

    Returns:
        largest deviation of the exported model from `model`, relative to the largest value of each output, over random
        images of two sizes (of one, if it is fixed).

    Raises:
        UserError: the size, the format or the model cannot be exported, or the exported model deviates.
    """
    divisor = size_divisor(model.backbone)
    check_size(model, size, divisor, dynamic)
    if path.suffix not in _WRITERS:
        raise UserError(f"Output {path} must end in {' or '.join(_WRITERS)}, or in .ts for the whole detector.")
    write, read = _WRITERS[path.suffix]
    model.eval().requires_grad_(False)
    sizes = [tuple(size)]
    if dynamic:
        sizes.append((size[0] + divisor, size[1] + 2 * divisor))
    with torch.no_grad(), replacing(path) as temporary:
        shapes = {0: Dim.AUTO} | ({2: Dim.AUTO, 3: Dim.AUTO} if dynamic else {})
        # A batch of one, or equal sides, would be taken for a promise that they always are.
        example = torch.rand(2, 3, size[0], size[1] + divisor * dynamic) * 255
        logger.info(f"Exporting {path.name} for images of {tuple(example.shape)} …")
        try:
            program = torch.export.export(model, (example,), dynamic_shapes=(shapes,), strict=False)
            write(program, temporary, model)
            exported = read(temporary)
            deviation = 0.0
            for batch, (height, width) in enumerate(sizes, start=1):
                images = torch.rand(batch, 3, height, width) * 255
                deviation = max(deviation, _deviation(exported(images), model(images)))
        except Exception as e:
            if isinstance(e, UserError) or _window(model.backbone) is not None:
                raise
            # torch.export raises a dozen types; operations of a backbone's own it cannot look into.
            raise UserError(
                f"{_name(model.backbone)} cannot be exported by torch.export ({type(e).__name__}); the backbones made "
                "for it have an attribute window_pixels."
            ) from e
        _refuse(path, deviation)
    return deviation


def check_size(model: PixelPyramid, size: Sequence[int], divisor: int, dynamic: bool) -> None:
    """Raises UserError unless the model takes images of this height and width and can leave them free if asked to."""
    if any(side < 1 or side % divisor for side in size):
        raise UserError(
            f"Size {size[0]}x{size[1]} is not divisible by {divisor}, as this backbone and its pyramid need; pad to "
            f"{'x'.join(str(max(1, -(-side // divisor)) * divisor) for side in size)}."
        )
    if not dynamic:
        return
    window = _window(model.backbone)
    if window is None:
        raise UserError(f"{_name(model.backbone)} cannot be exported with a free size; fix it.")
    if min(size) <= window:
        raise UserError(
            f"Size {size[0]}x{size[1]} is no larger than one attention window of {window} pixels, which a free size "
            "must be; name a larger one, or export it fixed."
        )


def _window(backbone: nn.Module) -> int | None:
    """Side in pixels of a trunk's largest attention window, which trunks made for `torch.export` tell; else None."""
    return getattr(getattr(backbone, "net", None), "window_pixels", None)


def _name(backbone: nn.Module) -> str:
    """Class of the trunk below the pyramid."""
    return type(getattr(backbone, "net", None) or getattr(backbone, "bottom_up", None) or backbone).__name__


def _write_pt2(program: ExportedProgram, path: Path, model: PixelPyramid) -> None:
    with open(path, "wb") as f:
        torch.export.save(program, f)


def _read_pt2(path: Path) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
    with open(path, "rb") as f:
        return torch.export.load(f).module()


def _write_onnx(program: ExportedProgram, path: Path, model: PixelPyramid) -> None:
    check_onnx_packages()
    onnx_program(program, model, model.names).save(path, external_data=False)


def _read_onnx(path: Path) -> Callable[[torch.Tensor], Sequence[torch.Tensor]]:
    session = onnx_session(path)
    return lambda images: [torch.from_numpy(out) for out in session.run(None, {"images": images.numpy()})]


_WRITERS = {".pt2": (_write_pt2, _read_pt2), ".onnx": (_write_onnx, _read_onnx)}


def export_detector(model: nn.Module, path: Path, image: torch.Tensor) -> tuple[float, list[str], int]:
    """Writes the whole detector as a TorchScript trace of its inference on one image, before masks are pasted.

    The trace takes images that fit into the square which ViTDet's models pad to; other models are traced as far as
    detectron2 allows, and refused if the trace does not follow a change of size.

    Args:
        model: on the CPU; put in evaluation mode.
        path: file to write.
        image: `(3, H, W)` as the test mapper gives it, with objects in it.

    Returns:
        largest deviation over the image, its mirror image and its upper left three quarters; names of the outputs in
        their order; objects compared.

    Raises:
        UserError: nothing is found in the image, or the trace deviates.
    """
    image = image.float()
    inputs = [image, image.flip(2).contiguous(), image[:, : image.shape[1] * 3 // 4, : image.shape[2] * 3 // 4]]
    adapter = TracingAdapter(model.eval().requires_grad_(False), [{"image": image}], _inference)
    with torch.no_grad(), replacing(path) as temporary:
        expected = [adapter(i) for i in inputs]
        if not len(expected[0][0]):
            raise UserError("The detector finds nothing in this image; a trace needs one with objects in it.")
        traced = torch.jit.trace(adapter, (image,), check_trace=False)
        torch.jit.save(traced, str(temporary))
        exported = torch.jit.load(str(temporary))
        deviation = max(_deviation(exported(i), e) for i, e in zip(inputs, expected, strict=True))
        _refuse(path, deviation)
    names = [*adapter.outputs_schema.schemas[0].keys, "image_size"]
    return deviation, names, sum(len(e[0]) for e in expected)


def _inference(model: Any, inputs: list[dict]) -> list:
    return [model.inference(inputs, do_postprocess=False)[0]]


def _deviation(ours: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Largest difference relative to the largest value of each tensor; infinite for other shapes or numbers."""
    worst = 0.0
    for a, b in zip(ours, expected, strict=True):
        if a.shape != b.shape:
            return math.inf
        if b.numel():
            difference = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-12)
            worst = max(worst, difference.item() if difference.isfinite() else math.inf)
    return worst


def _refuse(path: Path, deviation: float) -> None:
    if deviation > TOLERANCE:
        raise UserError(
            f"{path.name} is not kept: the exported model deviates from the original by {deviation:.1e} of the largest "
            f"value, more than {TOLERANCE:.0e}."
        )
