#!/usr/bin/env python3
"""Print versions, devices and detectron2's compiled operators, for a bug report or a look at a new set-up."""

import argparse
import importlib
import os
import platform
from importlib import metadata

PACKAGES = [
    "torch",
    "torchvision",
    "timm",
    "einops",
    "numpy",
    "fvcore",
    "iopath",
    "omegaconf",
    "hydra-core",
    "pycocotools",
    "faster-coco-eval",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "setuptools",
]


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def detectron2_rows() -> list[tuple[str, str]]:
    """Where detectron2 is and whether its compiled part loads."""
    try:
        detectron2 = importlib.import_module("detectron2")
    except ImportError as e:
        return [("detectron2", f"missing ({e}); `make setup` or README.md installs it")]
    rows = [("detectron2", f"{detectron2.__version__} in {os.path.dirname(detectron2.__file__)}")]
    try:
        importlib.import_module("detectron2._C")
        rows.append(("detectron2._C", "present"))
    except ImportError:
        rows.append(
            ("detectron2._C", "absent: no rotated boxes, no deformable convolution; this project needs neither")
        )
    return rows


def device_rows() -> list[tuple[str, str]]:
    import torch

    rows = [
        (
            "CPU",
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        )
    ]
    if not torch.cuda.is_available():
        return [*rows, ("GPU", "none (train with --num-gpus 0 train.device=cpu)")]
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        rows.append(
            (f"GPU {i}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}")
        )
    return [
        *rows,
        ("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}"),
        ("bfloat16", str(torch.cuda.is_bf16_supported())),
    ]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = [("Python", platform.python_version()), ("platform", platform.platform())]
    rows += [(package, version(package)) for package in PACKAGES]
    rows += detectron2_rows()
    if version("torch") != "missing":
        rows += device_rows()
    rows.append(("DETECTRON2_DATASETS", os.environ.get("DETECTRON2_DATASETS", "not set: ./datasets")))
    for name, value in rows:
        print(f"{name:24}{value}")


if __name__ == "__main__":
    main()
