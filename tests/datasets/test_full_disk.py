"""What writes data sets and pictures does not say that it went well on a full disk, and leaves nothing behind."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from shapes import REPO
from soaking.sandbox import Limits, run

from lazyrun.viz.pictures import write_picture
from pretrain.common.commands import exit_on_user_error

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA")

CONTENT = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 2000, "height": 1000} for i in range(3)],
    "categories": [{"id": 1, "name": "coin"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 1999, 0, 900, 999]], "iscrowd": 0}
    ],
}


def script(name, *arguments):
    def command():
        sys.argv = [name, *map(str, arguments)]
        runpy.run_path(str(REPO / "datasets" / name), run_name="__main__")

    return command


def noise(path):
    with exit_on_user_error():
        write_picture(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("size", [0, 3000])
@pytest.mark.parametrize("what", ["shapes", "label maps", "picture"])
def test_a_full_disk(tmp_path, what, size):
    (tmp_path / "coco.json").write_text(json.dumps(CONTENT))
    output = tmp_path / "out"
    command = {
        "shapes": script("make_shapes.py", output, "--train", 2, "--val", 1),
        "label maps": script("coco_to_label_maps.py", tmp_path / "coco.json", output),
        "picture": lambda: noise(output / "a.png"),
    }[what]
    ended = run(command, Limits(file_size=size))
    assert ended.code == 1 and ended.fault is None, ended.output
    assert ended.output.count("error: ") == 1 and "could not be written: File too large" in ended.output
    assert not [path for path in tmp_path.rglob("*") if path.name != "coco.json" and path.is_file()]
