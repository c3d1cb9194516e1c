"""Pictures of images that are too large to be drawn as they are."""

import numpy as np

from lazyrun.viz import instances
from lazyrun.viz.instances import draw_annotations


def test_large_images_are_drawn_smaller_with_everything_in_place(monkeypatch):
    image = np.zeros((400, 800, 3), np.uint8)
    polygon = [400.0, 100.0, 600.0, 100.0, 600.0, 300.0, 400.0, 300.0]
    annotation = {"bbox": [400, 100, 200, 200], "category_id": 1, "segmentation": [polygon]}
    assert draw_annotations(image, [annotation], {1: "a"}).shape == (400, 800, 3)
    monkeypatch.setattr(instances, "MAX_DRAWN", 80_000)
    drawn = draw_annotations(image, [annotation], {1: "a"})
    assert drawn.shape == (200, 400, 3)
    ys, xs = np.nonzero(drawn.max(axis=2))
    assert abs(xs.min() - 200) < 5 and abs(xs.max() - 300) < 5 and abs(ys.max() - 150) < 5
    assert drawn[120, 250].max() > 20  # inside of the mask
    assert draw_annotations(image, [], {}).shape == (200, 400, 3)
