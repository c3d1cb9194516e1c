"""Segmentations: what is mended, and what is refused before C code could read it."""

import numpy as np
import pytest
from pycocotools import mask as mask_util
from tiny_coco import HEIGHT, WIDTH, content, run_lengths

from lazyrun.data.coco.masks import BARE_RUNS, FLAT, NESTED, THIN, WHOLE_RUNS, BadMask, clean_mask

SIZE = (WIDTH, HEIGHT)
TRIANGLE = [1, 1, 9, 1, 9, 9]
ANNOTATION = content(1)["annotations"][0]
RUNS = run_lengths(ANNOTATION)


@pytest.mark.parametrize(
    ("value", "expected", "oddities"),
    [
        ([TRIANGLE], [TRIANGLE], ()),
        (TRIANGLE, [TRIANGLE], (FLAT,)),
        ([[1, 1], [9, 1], [9, 9]], [TRIANGLE], (NESTED,)),
        ([[[1, 1], [9, 1], [9, 9]]], [TRIANGLE], (NESTED,)),
        ([[1, 1, 9, 1], TRIANGLE], [TRIANGLE], (THIN,)),
        ([[], TRIANGLE], [TRIANGLE], ()),
        ([[1, 1, 9, 1]], None, (THIN,)),
        ([[]], None, ()),
        ([], None, ()),
        (None, None, ()),
        ({}, None, ()),
        (RUNS, RUNS, ()),
        (RUNS["counts"], RUNS, (BARE_RUNS,)),
        ({"counts": RUNS["counts"]}, RUNS, (BARE_RUNS,)),
        ({**RUNS, "counts": [float(c) for c in RUNS["counts"]]}, RUNS, (WHOLE_RUNS,)),
    ],
)
def test_what_has_one_meaning_is_mended(value, expected, oddities):
    mask = clean_mask(value, SIZE)
    assert mask.value == expected and mask.oddities == oddities


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[1, 1, 9, float("nan"), 9, 9]], "the coordinate nan"),
        ([[1, 1, float("inf"), float("-inf"), 9, 9]], "the coordinate inf"),
        ([[1, 1, 1e9, 1, 9, 9]], "the coordinate 1000000000.0 in 64x48 pixels"),
        ([[1, 1, 4.7e31, 1, 9, 9]], "the coordinate 4.7e+31"),
        ([[1, 1, 10**400, 1, 9, 9]], "the coordinate 1000"),
        ([["1", "1", "9", "1", "9", "9"]], "'1' in place of a coordinate"),
        ([[1, 1, None, 1, 9, 9]], "None in place of a coordinate"),
        ([[1, 1, True, 1, 9, 9]], "True in place of a coordinate"),
        ([[1, 1, 9, 1, 9]], "a polygon of 5 numbers"),
        ([[201, 201, 209, 201, 209, 209]], "polygons outside of the image"),
        ([[[1, 1, 2], [9, 1, 2], [9, 9, 2]]], "lists within a polygon that are no points"),
        ([{"x": 1, "y": 2}], "a list of objects"),
        ([5, "a"], "neither a polygon nor run lengths"),
        ("text", "'text' in place of polygons"),
        (7, "7 in place of polygons"),
        ({"size": [HEIGHT, WIDTH]}, "an object without counts"),
        ({**RUNS, "size": [WIDTH, HEIGHT]}, "with height and width exchanged"),
        ({**RUNS, "size": [10, 10]}, "run lengths for 10x10 pixels in an image of 64x48"),
        ({**RUNS, "size": "48x64"}, "which is not [height, width]"),
        ({**RUNS, "size": [float("nan"), 1]}, "which is not [height, width]"),
        ({**RUNS, "counts": [*RUNS["counts"], 5]}, "add up to 3077 pixels in place of 64x48"),
        ({**RUNS, "counts": [-5, *RUNS["counts"], 5]}, "the negative run length -5"),
        ({**RUNS, "counts": [1.5, 3070.5]}, "no whole numbers"),
        ({**RUNS, "counts": ["3072"]}, "no whole numbers"),
        ({**RUNS, "counts": 7}, "no whole numbers"),
        ({**RUNS, "counts": "garbage!!"}, "no compressed text"),
        ({**RUNS, "counts": "é"}, "no compressed text"),
        ({**RUNS, "counts": run_lengths(ANNOTATION, text=True)["counts"][:-1]}, "run lengths"),
    ],
)
def test_the_rest_is_refused(value, said):
    with pytest.raises(BadMask) as error:
        clean_mask(value, SIZE)
    assert said in str(error.value)


def test_compressed_text_is_read_as_cocos_code_does():
    rng = np.random.default_rng(0)
    for share in (0.001, 0.1, 0.5, 0.999):
        for height, width in ((48, 64), (300, 7), (1, 1), (2, 3000)):
            mask = np.asfortranarray(rng.random((height, width)) < share, dtype=np.uint8)
            encoded = mask_util.encode(mask)
            value = {"size": [height, width], "counts": encoded["counts"].decode()}
            assert clean_mask(value, (width, height)).value == value
            if len(value["counts"]) > 1:
                with pytest.raises(BadMask):
                    clean_mask({**value, "counts": value["counts"] + "5"}, (width, height))


def test_size_of_the_image_is_unknown():
    assert clean_mask([TRIANGLE], None).value == [TRIANGLE]
    with pytest.raises(BadMask, match="which is not"):
        clean_mask({"counts": RUNS["counts"]}, None)
