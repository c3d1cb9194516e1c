"""A handful of generated images, and the detector that tests train on them."""

import os
import runpy
import subprocess
from pathlib import Path

import preloaded
from pycocotools import mask as mask_util

REPO = Path(__file__).resolve().parents[2]
CONFIG = "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"
SMALL = [
    "data.image_size=64",
    "model.backbone.net.embed_dim=[8,8,16]",
    "model.backbone.net.depth=[1,1,2]",
    "model.backbone.net.drop_path_rate=0.2",
    "model.roi_heads.batch_size_per_image=8",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.eval_period=0",
    "train.log_period=1",
]


def environment(datasets: Path) -> dict[str, str]:
    """One thread a process: tests compare bits, and processes share two cores."""
    return os.environ | {"DETECTRON2_DATASETS": str(datasets), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def train_command(output: Path, *arguments: str) -> list[str]:
    """`tools/lazyconfig_train_net.py` on the CPU; arguments with `--` come before the overrides."""
    flags = [a for a in arguments if a.startswith("--")]
    chosen = [a for a in arguments if not a.startswith("--")]
    in_epochs = any(a.startswith("train.epochs") for a in chosen)  # then the evaluation's period follows
    small = [o for o in SMALL if not (in_epochs and o.startswith("train.eval_period"))]
    overrides = [*small, f"train.output_dir={output}", *chosen]
    gpus = [] if any(f.startswith("--num-gpus") for f in flags) else ["--num-gpus=0"]
    return ["tools/lazyconfig_train_net.py", "--config-file", CONFIG, *gpus, *flags, *overrides]


def run_training(datasets: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess:
    return preloaded.run(train_command(output, *arguments), environment(datasets))


def make_shapes(root: Path, train: int = 8, val: int = 4, size: int = 64) -> Path:
    """Writes `root/shapes` and returns `root`."""
    write_split = runpy.run_path(str(REPO / "datasets" / "make_shapes.py"))["write_split"]
    for split, count, seed in (("train", train, 0), ("val", val, 1)):
        write_split(root / "shapes", split, count, seed, size, max_objects=4)
    return root


def run_lengths(segmentation: list, height: int, width: int) -> dict:
    """Polygons as the run lengths that results files hold."""
    encoded = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
