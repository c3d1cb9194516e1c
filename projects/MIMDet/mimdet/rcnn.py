"""An R-CNN whose backbone knows the true sizes of padded images."""

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import ImageList

__all__ = ["ImageListRCNN"]


class ImageListRCNN(GeneralizedRCNN):
    """:class:`detectron2.modeling.GeneralizedRCNN` that gives its backbone the whole ImageList.

    Training, evaluation and test-time augmentation are detectron2's own code: it calls `self.backbone(images.tensor)`
    everywhere and looks at nothing else of the images but `image_sizes`.
    """

    def preprocess_image(self, batched_inputs: list[dict[str, torch.Tensor]]) -> ImageList:
        """Normalises, pads and batches; the result has an ImageList where detectron2's has the tensor."""
        images = super().preprocess_image(batched_inputs)
        return ImageList(images, images.image_sizes)

    @staticmethod
    def backbone_input(tensor: torch.Tensor, image_size: tuple[int, int]) -> ImageList:
        """What the backbone takes for padded images `(B, C, H, W)` that all have one true size."""
        return ImageList(tensor, [image_size])
