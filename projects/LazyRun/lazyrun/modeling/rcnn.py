"""An R-CNN for images that the data pipeline has padded."""

from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances

__all__ = ["PaddedRCNN"]


class PaddedRCNN(GeneralizedRCNN):
    """:class:`detectron2.modeling.GeneralizedRCNN` for images padded at the bottom or right before they reach it, in
    evaluation as in training (:class:`detectron2.data.transforms.FixedSizeCrop`).

    The larger of the two ratios of original and padded sides is the one along the side that is not padded, so it is
    the scale of the image: predictions are scaled back by it in both directions.
    """

    def inference(
        self,
        batched_inputs: list[dict[str, torch.Tensor]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """As :meth:`detectron2.modeling.GeneralizedRCNN.inference`."""
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return results
        return [{"instances": _scale_back(r, x)} for r, x in zip(results, batched_inputs, strict=True)]


def _scale_back(result: Instances, image: dict) -> Instances:
    padded_height, padded_width = result.image_size
    height, width = image.get("height", padded_height), image.get("width", padded_width)
    scale = max(height / padded_height, width / padded_width)
    # What the image covers of the padded one: detectron2 then finds the same ratio along both sides.
    content = Instances((height / scale, width / scale), **result.get_fields())
    return detector_postprocess(content, height, width)
