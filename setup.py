"""Packaging of ConvMAEDet: `pretrain` (torch and timm only), and the detectron2 projects around them."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("pretrain/__init__.py").read_text()).group(1)

PRETRAIN = [
    "torch>=2.10",
    "torchvision>=0.25",
    "timm>=1.0.21",
    "einops>=0.7",
    "numpy>=1.26",
    "safetensors>=0.4",
    "filelock>=3.12",
    "tqdm>=4.66",
]

# detectron2 itself is missing here on purpose: it has no official PyPI release. `make setup` installs a pinned
# mirror of it, README.md gives the route from source for a GPU box.
DETECTION = [
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.9",
    "omegaconf>=2.3,<2.4",
    "hydra-core>=1.3",
    "pycocotools>=2.0.7",
    "faster-coco-eval>=1.6",
    "Pillow>=11",
    "Jinja2>=3",
    "matplotlib>=3.8",
    "opencv-python-headless>=4.8",
    "cloudpickle>=3",
    "shapely>=2",  # crops polygons
    "tabulate>=0.9",
    "termcolor>=2",
    "tensorboard>=2.15",
    "yacs>=0.1.8",
    "packaging>=23",
    "setuptools<81",  # detectron2's model zoo imports pkg_resources
]

VIDEO = ["av>=18"]  # PyAV, whose wheels bring FFmpeg along

EXPORT = ["onnx>=1.17", "onnxruntime>=1.21", "onnxscript>=0.7"]

setup(
    name="convmae-det",
    version=VERSION,
    description="ConvMAE detection for detectron2, with fast exact ConvMAE pretraining beside it",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["pretrain", "pretrain.*"])
    + find_packages(where="projects/LazyRun", include=["lazyrun", "lazyrun.*"])
    + find_packages(where="projects/ConvMAEDet", include=["convmae_det", "convmae_det.*"])
    + find_packages(where="projects/MIMDet", include=["mimdet", "mimdet.*"])
    + find_packages(where="projects/ConvMAESeg", include=["convmae_seg", "convmae_seg.*"]),
    package_dir={
        "lazyrun": "projects/LazyRun/lazyrun",
        "convmae_det": "projects/ConvMAEDet/convmae_det",
        "mimdet": "projects/MIMDet/mimdet",
        "convmae_seg": "projects/ConvMAESeg/convmae_seg",
    },
    package_data={package: ["py.typed"] for package in ("convmae_det", "mimdet", "convmae_seg")}
    | {"pretrain": ["py.typed", "checkpoints/published.json"]}
    | {"lazyrun": ["py.typed", "viz/templates/*.html", "plugins.txt"]},
    install_requires=PRETRAIN,
    extras_require={
        "detection": DETECTION,
        "pretrain": ["tensorboard>=2.15", "matplotlib>=3.8"],
        "lvis": ["lvis>=0.5.3"],
        "video": VIDEO,
        "slurm": ["submitit>=1.5"],
        "export": EXPORT,
        "download": ["gdown>=5.2"],
        "wandb": ["wandb>=0.17"],
        "dev": ["pytest>=8", "pytest-xdist>=3.6.1", "ruff>=0.6", "mypy>=1.11", "types-PyYAML", "types-tabulate"]
        + EXPORT
        + VIDEO,
    },
)
