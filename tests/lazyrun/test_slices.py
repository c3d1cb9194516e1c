"""Where slices lie, and which objects remain when what they hold is merged."""

import numpy as np
import pytest

from lazyrun.slices import Found, Slicing, SlicingError


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.95])
@pytest.mark.parametrize(("height", "width"), [(65, 64), (20, 130), (200, 333), (128, 128)])
def test_slices_cover_the_image_and_overlap(height, width, overlap):
    places = np.array(Slicing(64, overlap).places(height, width))
    covered = np.zeros((height, width), bool)
    for top, left, bottom, right in places:
        covered[top:bottom, left:right] = True
        assert (bottom - top, right - left) == (min(64, height), min(64, width))
    assert covered.all()
    for axis, length in enumerate((height, width)):
        starts = np.unique(places[:, axis])
        assert starts[0] == 0 and starts[-1] == max(0, length - 64)
        assert (64 - np.diff(starts) >= overlap * 64).all()
        # One fewer could not overlap as much.
        assert len(starts) < 3 or 64 - starts[-1] / (len(starts) - 2) < np.ceil(overlap * 64)


def test_images_up_to_a_slice_have_none():
    assert Slicing(64).places(64, 64) == [] == Slicing(64).places(1, 30)
    assert Slicing(64, overlap=0.0).places(128, 128) == [(0, 0, 64, 64), (0, 64, 64, 128), (64, 0, 128, 64),
                                                         (64, 64, 128, 128)]  # fmt: skip


def test_objects_at_inner_borders_are_cut():
    boxes = np.array([[0, 0, 9, 9], [100, 40, 120, 60], [150, 40, 200, 60], [120, 10, 130, 100], [2.5, 30, 30, 40.0]])
    slicing = Slicing(100)
    assert slicing.cut(boxes, (0, 0, 100, 100), 100, 200).tolist() == [False, True, True, True, False]
    assert slicing.cut(boxes + [100, 0, 100, 0], (0, 100, 100, 200), 100, 300)[[0, 4]].tolist() == [True, False]
    assert not slicing.cut(boxes, (0, 0, 100, 200), 100, 200).any()


def merged(objects, limit=100, **options):
    """Indices of what remains of (box, score, class, slice, cut)."""
    columns = [np.array(column) for column in zip(*objects, strict=True)]
    return Slicing(100, **options).merge(Found(*columns), limit).tolist()


WHOLE = ([0, 0, 10, 10], 0.5, 0, 0, False)
SHIFTED = ([1, 0, 11, 10], 0.9, 0, 1, False)  # IoU with it 9 / 11
INSIDE = ([0, 0, 5, 8], 0.9, 0, 1, False)  # IoU 0.4, IoS 1
PART = ([0, 0, 10, 4], 0.9, 0, 1, True)
OTHER_PART = ([0, 3, 10, 10], 0.8, 0, 2, True)  # shares a quarter of the first part


def of(item, **changes):
    names = ("box", "score", "label", "place", "cut")
    return tuple(changes.get(name, value) for name, value in zip(names, item, strict=True))


@pytest.mark.parametrize(
    ("objects", "options", "expected"),
    [
        ([WHOLE, SHIFTED], {}, [1]),
        ([WHOLE, SHIFTED], {"threshold": 0.85}, [1, 0]),
        ([WHOLE, of(SHIFTED, label=1)], {}, [1, 0]),
        ([WHOLE, of(SHIFTED, place=0)], {}, [1, 0]),  # the detector has told them apart
        ([WHOLE, INSIDE], {}, [1, 0]),
        ([WHOLE, INSIDE], {"metric": "ios"}, [1]),
        ([WHOLE, PART], {}, [0]),  # whatever the scores
        ([WHOLE, of(PART, place=0)], {}, [1, 0]),
        ([of(INSIDE, score=0.1), of(WHOLE, score=0.9, cut=True, place=2)], {}, [1, 0]),  # 40% of it are covered
        ([PART, OTHER_PART], {}, [0, 1]),
        ([PART, OTHER_PART], {"threshold": 0.25}, [0]),
        ([PART, OTHER_PART, WHOLE], {}, [2]),
    ],
)
def test_what_remains(objects, options, expected):
    assert merged(objects, **options) == expected


def test_best_scores_first_up_to_the_limit():
    objects = [([20 * i, 0, 20 * i + 10, 10], score, 0, i, i == 1) for i, score in enumerate((0.2, 0.9, 0.5, 0.9))]
    assert merged(objects) == [1, 3, 2, 0] and merged(objects, limit=2) == [1, 3]
    empty = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool))
    assert Slicing(100).merge(empty, 5).tolist() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice": 0}, "slice=0 must be a whole number of pixels, at least 1"),
        ({"slice": 64.5}, r"slice=64\.5 must be a whole number"),
        ({"slice": True}, "slice=True must be a whole number"),
        ({"slice": 64, "slice_overlap": 1.0}, r"slice_overlap=1\.0 must be at least 0 and below 1"),
        ({"slice": 64, "slice_overlap": -0.1}, r"slice_overlap=-0\.1"),
        ({"slice": 64, "slice_overlap": "much"}, "slice_overlap=much"),
        ({"slice": 64, "slice_overlap": float("nan")}, "slice_overlap=nan"),
        ({"slice": 64, "slice_whole": "no"}, "slice_whole=no must be true or false"),
        ({"slice": 64, "slice_metric": "giou"}, "slice_metric=giou is neither iou nor ios"),
        ({"slice": 64, "slice_threshold": 0}, "slice_threshold=0 must be above 0 and at most 1"),
        ({"slice": None, "slice_overlap": 7}, "slice_overlap=7 must be at least 0"),
        ({"slice_metric": "giou"}, "slice_metric=giou is neither"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(SlicingError, match=message):
        Slicing.from_options(options)


def test_too_many_slices_and_options_without_a_size():
    with pytest.raises(SlicingError, match=r"makes 640000 slices of 800x800 pixels, more than 10000; take larger"):
        Slicing(1).places(800, 800)
    assert Slicing.from_options({"slice": None, "slice_overlap": 0.5}) is None
    with pytest.raises(TypeError, match="overlaps"):
        Slicing.from_options({"slice": 64, "slice_overlaps": 0.5})
