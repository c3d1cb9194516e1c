"""From a predictor to what is exported of it: the graph, an example, and what the file says of itself."""

from collections.abc import Mapping
from importlib import metadata as packages
from typing import Any

import torch
from torch import nn

from lazyrun.export.detector import FixedSizeRCNN
from lazyrun.export.operators import onnx_translations
from lazyrun.export.resizing import resizing_steps
from lazyrun.modeling.rcnn import PaddedRCNN
from lazyrun.onnx_runner.metadata import Metadata
from pretrain.common.errors import UserError
from pretrain.common.onnx_files import OnnxForm, check_onnx_packages

__all__ = ["apply_settings", "detector_form", "package_versions"]


def detector_form(predictor: Any, *, square: int | None = None, settings: Mapping[str, Any] | None = None) -> OnnxForm:
    """A detector as one graph from images to detections.

    The model pads images to a square, and the graph takes images of any size up to that. A model without such a square
    gets one, for this and all later predictions. One whose images are padded before they reach it takes that size
    alone.

    Args:
        predictor: with its weights, on the CPU; its model is put in the state that is exported.
        square: side in pixels for models that pad to none of their own; by default the longest side that the test
            transform gives an image.
        settings: replace the :attr:`export_settings` of the model's parts, by name.

    Raises:
        UserError: the model or its test transform cannot be exported.
    """
    check_onnx_packages()
    model, steps = predictor.model, resizing_steps(predictor.cfg)
    module = FixedSizeRCNN(model, 1)  # says what cannot be exported before anything else
    taken = apply_settings(model, settings or {})
    module.square, largest, fixed = _sizes(model, steps, square)
    heads = model.roi_heads
    box_predictor = heads.box_predictor[-1] if module.cascade else heads.box_predictor
    metadata = Metadata(
        task="detection",
        categories=predictor.categories,
        input_format=predictor.format,
        resizing=steps,
        largest=[largest, largest],
        fixed_size=fixed,
        normalisation={"mean": model.pixel_mean.flatten().tolist(), "std": model.pixel_std.flatten().tolist()},
        thresholds={
            "score": box_predictor.test_score_thresh,
            "nms": box_predictor.test_nms_thresh,
            "detections_per_image": box_predictor.test_topk_per_image,
        },
        settings=taken,
        versions=package_versions("torch", "onnx", "onnxscript"),
    )
    height, width = (largest, largest) if fixed else (max(2, largest * 3 // 4), max(2, largest * 7 // 8))
    example = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    sizes = ["batch", "detections"]
    outputs: dict[str, list[int | str]] = {"boxes": [*sizes, 4], "scores": [*sizes], "classes": [*sizes]}
    if heads.mask_on:
        outputs["masks"] = [*sizes, *_mask_size(module, example)]
    dynamic = {0: "batch"} if fixed else {0: "batch", 2: "height", 3: "width"}
    return OnnxForm(module.eval(), example, dynamic, outputs, metadata.to_strings(), onnx_translations())


def apply_settings(model: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Puts parts that can run in several ways in the way that is exported, and returns what was set.

    A part names its own in a dict `export_settings`, from its attributes to their values in exported files.

    Raises:
        UserError: no part has a setting of this name.
    """
    modules: list[Any] = list(model.modules())
    parts = [(part, dict(part.export_settings)) for part in modules if hasattr(part, "export_settings")]
    known = {name for _, own in parts for name in own}
    if unknown := set(settings) - known:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"The model has no setting {sorted(unknown)[0]!r} for its export; it has {names}.")
    taken: dict[str, Any] = {}
    for part, own in parts:
        for name, value in own.items():
            taken[name] = settings.get(name, value)
            setattr(part, name, taken[name])
    return taken


def package_versions(*names: str) -> dict[str, str]:
    """Versions of packages, this one's among them where it is installed."""
    found = {}
    for name in ("convmae-det", *names):
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            continue
    return found


def _sizes(model: Any, steps: list[dict], square: int | None) -> tuple[int, int, bool]:
    """The side of the padded square; the largest image; whether it is the only one."""
    backbone: Any = model.backbone
    divisor = max(1, backbone.padding_constraints.get("size_divisibility", 0) or backbone.size_divisibility)
    own = backbone.padding_constraints.get("square_size", 0)
    padded = next((step for step in steps if step["step"] == "pad"), None)
    if isinstance(model, PaddedRCNN) and padded:
        own = padded["height"]
        if padded["height"] != padded["width"] or own % divisor:
            raise UserError(f"Images padded to {padded['width']}x{own} are no square that {divisor} divides.")
    if own and square and square != own:
        raise UserError(f"--size {square}: this model pads images to {own} pixels; change data.image_size instead.")
    longest = max((step["max_size"] for step in steps if "max_size" in step), default=0)
    side = own or square or longest
    if not side:
        raise UserError("Name the side of the square that images are padded to with --size.")
    if longest > side:
        raise UserError(f"--size {side}: the test transform makes images of up to {longest} pixels; name that or more.")
    side = -(-side // divisor) * divisor
    if not own:
        backbone._square_pad = side  # detectron2's FPN reads it at each image
    return side, own or side, isinstance(model, PaddedRCNN) and padded is not None


@torch.no_grad()
def _mask_size(module: FixedSizeRCNN, example: torch.Tensor) -> list[int]:
    """Height and width of the masks. Running the model once also fills what its parts keep for a size."""
    heads = module.model.roi_heads
    module.model.backbone(example.new_zeros(1, 3, module.square, module.square))
    size = heads.mask_pooler.output_size
    channels = next(p for p in heads.mask_head.parameters() if p.ndim == 4).shape[1]
    return list(heads.mask_head.layers(example.new_zeros(1, channels, *size)).shape[-2:])
