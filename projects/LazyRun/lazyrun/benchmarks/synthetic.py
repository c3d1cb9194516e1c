"""Made-up training images with ground truth, for measuring a detector without a data set."""

import math

import torch
from detectron2.structures import Boxes, Instances, PolygonMasks

__all__ = ["synthetic_batch"]


def synthetic_batch(batch_size: int, size: int, num_classes: int, objects: int = 8, seed: int = 0) -> list[dict]:
    """Square images of noise, each with some objects, in detectron2's format.

    Args:
        size: side in pixels.
        num_classes: the objects' classes are 0 to `num_classes - 1`.
        objects: in each image; COCO has 7.3 on average. They are ellipses whose sides are 5 to 60 % of the image's.

    Returns:
        a dict for each image, with `image` (3, size, size) in 0 to 255, `height`, `width`, and `instances`.
    """
    generator = torch.Generator().manual_seed(seed)
    angles = torch.arange(12) * (2 * math.pi / 12)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)  # (corners, xy)
    batch = []
    for _ in range(batch_size):
        image = torch.randint(0, 256, (3, size, size), generator=generator).float()
        extents = size * (0.05 + 0.55 * torch.rand(objects, 2, generator=generator) ** 2)
        corners = torch.rand(objects, 2, generator=generator) * (size - extents)
        polygons = (corners + extents / 2)[:, None] + extents[:, None] / 2 * circle
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(torch.cat([corners, corners + extents], dim=1))
        instances.gt_classes = torch.randint(0, num_classes, (objects,), generator=generator)
        instances.gt_masks = PolygonMasks([[polygon.flatten().double().numpy()] for polygon in polygons])
        batch.append({"image": image, "height": size, "width": size, "instances": instances})
    return batch
