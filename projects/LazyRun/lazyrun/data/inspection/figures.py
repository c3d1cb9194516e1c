"""The numbers of one annotated set: images, classes, sizes, objects per image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lazyrun.data.inspection.facts import ImageFacts

__all__ = ["SetFigures", "set_figures"]


@dataclass(frozen=True)
class SetFigures:
    """Crowds are counted apart and nowhere else.

    Attributes:
        image_sizes: width and height of every image in pixels, `(I, 2)`.
        per_image: objects in every image, `(I,)`.
        object_sizes: width and height of every box in pixels, `(N, 2)`.
        image_of: index of the image of every object, `(N,)`.
        objects_of: objects of every class, by name.
        images_of: images in which a class occurs, by name.
        crowds: regions of many objects, or to be ignored.
        masks: objects with a mask, by kind of it.
        without_area: boxes without area, which are left out.
        modes: images by Pillow's name of their kind of pixels; "?" where they could not be read.
    """

    image_sizes: np.ndarray
    per_image: np.ndarray
    object_sizes: np.ndarray
    image_of: np.ndarray
    objects_of: dict[str, int]
    images_of: dict[str, int]
    crowds: int
    masks: dict[str, int]
    without_area: int
    modes: dict[str, int]

    @property
    def sides(self) -> np.ndarray:
        """Side of the square of a box's area, in pixels of the image, `(N,)`."""
        return np.sqrt(self.object_sizes.prod(1))


def set_figures(
    images: Sequence[dict],
    annotations: Sequence[dict],
    categories: Sequence[dict],
    facts: Mapping[str, ImageFacts],
    without_area: int = 0,
) -> SetFigures:
    """Counts and sizes of a cleaned set.

    Args:
        images, annotations, categories: as :class:`lazyrun.data.coco.content.CocoContent` has them.
        facts: of the images, by file name; those missing there count as not read.
        without_area: boxes that were left out.
    """
    places = {image["id"]: n for n, image in enumerate(images)}
    objects = [a for a in annotations if not a.get("iscrowd")]
    image_of = np.array([places[a["image_id"]] for a in objects], dtype=np.int64)
    pairs = {(a["category_id"], a["image_id"]) for a in objects}
    by_class, spread = Counter(a["category_id"] for a in objects), Counter(c for c, _ in pairs)
    known = (facts.get(image["file_name"], ImageFacts()) for image in images)
    return SetFigures(
        image_sizes=np.array([[i["width"], i["height"]] for i in images], dtype=np.int64).reshape(-1, 2),
        per_image=np.bincount(image_of, minlength=len(images)),
        object_sizes=np.array([a["bbox"][2:] for a in objects], dtype=np.float64).reshape(-1, 2),
        image_of=image_of,
        objects_of={c["name"]: by_class[c["id"]] for c in categories},
        images_of={c["name"]: spread[c["id"]] for c in categories},
        crowds=len(annotations) - len(objects),
        masks=dict(Counter(_kind(a.get("segmentation")) for a in objects)),
        without_area=without_area,
        modes=dict(Counter(f.mode or "?" for f in known).most_common()),
    )


def _kind(segmentation: object) -> str:
    if not segmentation:
        return "box alone"
    return "run lengths" if isinstance(segmentation, dict) else "polygons"
