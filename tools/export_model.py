#!/usr/bin/env python3
"""Export a model for use without this project, and compare the file with the model it was made from.

    python tools/export_model.py --config-file output/mine/config.yaml --weights output/mine/model_best.pth \\
        --output detector.onnx --compare photos/

The suffix of --output decides what is written:
  .onnx  the whole model, images in, detections or class logits out (pip install -e '.[export]');
         python -m lazyrun.onnx_runner runs it without PyTorch; with --pyramid backbone and feature pyramid alone
  .pt2   backbone and feature pyramid, torch.export
  .ts    a detector as a TorchScript trace, which PyTorch has deprecated; --image names a picture with objects in it

--precision fp16 and --quantize int8 make smaller .onnx files that find almost the same: --compare with --annotations
tells by how much in AP.

exit code: 0 all went well; 1 the command cannot be carried out; 4 a float32 file finds something else than the model
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyrun.config.trust_option import add_trust_option
from lazyrun.export.calibration import LEAST_IMAGES, MOST_IMAGES
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8

if TYPE_CHECKING:
    from omegaconf import DictConfig

DIFFERENT = 4
NOISE = [np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8) for seed in (0, 1)]
"""What both are compared on without --compare."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config-file", help="LazyConfig .py file, or the config.yaml of a run; leave it out for a classifier")
    add("--weights", required=True, help="checkpoint of the model")
    add("--output", type=Path, required=True, help="file to write: .onnx, .pt2 or .ts")
    add("--compare", nargs="+", metavar="IMAGES", help="images or folders on which both must find the same (.onnx)")
    add("--annotations", type=Path, metavar="PATH", help="of the --compare images: also compare AP (detectors)")
    add(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="of a whole model's layers (default: %(default)s)"
    )
    add("--quantize", choices=("int8",), help="layers of a whole model in 8 bits")
    add(
        "--calibration",
        nargs="+",
        metavar="IMAGES",
        help="images or folders like what the model will see, from which --quantize takes the range of activations; "
        f"{LEAST_IMAGES} at least, of more than {MOST_IMAGES} so many are taken",
    )
    add("--sample-ratio", type=float, help="share of the tokens that MIMDet's encoder sees (default: 1)")
    add("--pyramid", action="store_true", help="export backbone and feature pyramid alone (.onnx)")
    add(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="of a whole model that pads images to no square of its own: side of the square; of a pyramid: height and "
        "width of the images (default: data.image_size twice)",
    )
    add("--dynamic", action="store_true", help="leave height and width of a pyramid's images free")
    add("--image", type=Path, help="picture with objects in it, to trace and compare with (.ts)")
    add("--force", action="store_true", help="replace --output if it exists")
    add("opts", nargs="*", metavar="key=value", help="overrides of the config")
    add_trust_option(parser)
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    # `--compare a.jpg key=value` reads the overrides as images.
    named = [*(args.compare or ()), *(args.calibration or ())]
    args.opts += [name for name in named if "=" in name and not Path(name).exists()]
    for option in ("compare", "calibration"):
        names = getattr(args, option)
        setattr(args, option, names and [name for name in names if name not in args.opts])
    return args


def check_arguments(args: argparse.Namespace) -> None:
    suffix = args.output.suffix
    if suffix not in (".pt2", ".onnx", ".ts"):
        raise UserError(f"Output {args.output} must end in .pt2, .onnx or .ts.")
    whole = suffix == ".onnx" and not args.pyramid
    if args.output.exists() and not args.force and not (whole and args.compare):
        raise UserError(f"Output {args.output} exists already; choose another name or pass --force to replace it.")
    if not args.output.parent.is_dir():
        raise UserError(f"Output {args.output} cannot be written: there is no directory {args.output.parent}.")
    if not whole and (args.compare or args.sample_ratio):
        raise UserError("--compare and --sample-ratio are for whole models, in .onnx files without --pyramid.")
    check_smaller(args, whole)
    if whole and (args.dynamic or len(args.size or [0]) != 1):
        raise UserError("A whole model takes images of any size up to one square: name it with --size PIXELS, or add "
                        "--pyramid to export backbone and pyramid alone.")  # fmt: skip
    if suffix == ".ts":
        if args.dynamic or args.size:
            raise UserError("A .ts file takes images of any size up to data.image_size: leave --size, --dynamic out.")
        if args.image is None:
            raise UserError("A .ts file is traced on a picture: name one with objects in it with --image.")
        if not args.image.is_file():
            raise UserError(f"Picture {args.image} does not exist; name one with --image.")
    elif not whole and args.size and len(args.size) != 2:
        raise UserError("Name height and width of a pyramid's images: --size HEIGHT WIDTH.")


def check_smaller(args: argparse.Namespace, whole: bool) -> None:
    """Refuses options of smaller files, and of their AP, that do not go together."""
    if not whole and (args.quantize or args.calibration or args.precision != "fp32"):
        raise UserError("--precision, --quantize and --calibration are for whole models, in .onnx files.")
    if args.quantize and args.precision == "fp16":
        raise UserError("--precision fp16 and --quantize int8 are two ways to a smaller file; choose one.")
    if args.calibration and not args.quantize:
        raise UserError("--calibration is for --quantize int8; add that, or leave --calibration out.")
    if args.annotations and not args.compare:
        raise UserError("--annotations are those of the images of --compare; name these too.")


# What takes seconds to import is imported in the functions, so that --help and mistakes in the arguments need not wait.


def precision_of(args: argparse.Namespace) -> dict[str, Any]:
    """Precision and calibration images, as the functions that export take them."""
    from lazyrun.inference.inputs import find_images

    calibration = find_images(args.calibration, args.output / "none") if args.calibration else None
    return {"precision": args.quantize or args.precision, "calibration": calibration}


def images_to_compare(args: argparse.Namespace) -> Sequence[Any]:
    """Those of --compare, or noise. All are read once, so that a damaged one is told of before the export's minutes."""
    if not args.compare:
        return NOISE
    from lazyrun.inference.inputs import find_images
    from lazyrun.onnx_runner import OnnxFileError
    from lazyrun.onnx_runner.images import read_rgb

    images = find_images(args.compare, args.output / "none")
    try:
        for image in images:
            read_rgb(image)
    except OnnxFileError as e:
        raise UserError(f"--compare: {e}") from e
    return images


def write_whole(args: argparse.Namespace, cfg: "DictConfig") -> bool:
    """Writes the whole model unless it is there already, and compares; returns whether both find the same."""
    from lazyrun.config.task import task_of
    from lazyrun.export.whole import compare_with, export_whole

    images = images_to_compare(args)
    options = {}
    if args.annotations:
        from lazyrun.evaluation.truth import read_truth
        from lazyrun.export.accuracy import Accuracy

        if task_of(cfg).name != "detection":
            raise UserError("--annotations: AP is compared for detectors alone.")
        options["accuracy"] = Accuracy(read_truth(args.annotations), images)
    predictor = task_of(cfg).predictor(cfg, args.weights, device="cpu")
    if args.output.exists() and not args.force:
        print(f"{args.output} exists already and is compared as it is; --force writes it anew.")
    else:
        settings = {} if args.sample_ratio is None else {"sample_ratio": args.sample_ratio}
        square = (args.size or [None])[0]
        metadata = export_whole(predictor, args.output, square=square, settings=settings, **precision_of(args))
        height, width = metadata.largest
        limit = "of" if metadata.fixed_size else "of up to"
        chosen = "".join(f", {name} {value:g}" for name, value in metadata.settings.items())
        size = f"{args.output.stat().st_size / 1e6:.1f} MB, {metadata.precision}"
        print(f"{args.output}: {metadata.task}, images {limit} {width}x{height} pixels{chosen}; {size}.")
    result = compare_with(predictor, args.output, images, **options)
    print(f"{result}.")
    if args.annotations:
        for name, (eager, exported) in options["accuracy"].average_precisions().items():
            print(f"{name} {eager:.2f} in PyTorch, {exported:.2f} in ONNX Runtime.")
    return result.holds or precision_in(args.output) != "float32"


def write_classifier(args: argparse.Namespace) -> bool:
    """As :func:`write_whole` for a classifier, whose file tells all that a config would."""
    if args.annotations:
        raise UserError("--annotations: AP is compared for detectors alone.")
    if args.output.suffix != ".onnx" or args.pyramid or args.size or args.opts:
        raise UserError("Without --config-file a classifier is exported, whole, as an .onnx file of its own size.")
    from convmae_det.classifier_export import compare_classifier, export_classifier

    images = images_to_compare(args)
    if args.force or not args.output.exists():
        metadata = export_classifier(args.weights, args.output, **precision_of(args))
        what = f"{len(metadata.categories)} classes, {metadata.largest[0]} pixels, {metadata.precision}"
        print(f"{args.output}: {metadata.task}, {what}.")
    result = compare_classifier(args.weights, args.output, images)
    print(f"{result}.")
    return result.holds or precision_in(args.output) != "float32"


def precision_in(path: Path) -> str:
    """What an exported file says of its precision; one of less than float32 need not find the same."""
    from lazyrun.onnx_runner import OnnxModel

    return OnnxModel(path).metadata.precision


def write_trace(args: argparse.Namespace, cfg: "DictConfig") -> str:
    from detectron2.config import instantiate

    from lazyrun.config.task import task_of
    from lazyrun.inference.export import export_detector
    from lazyrun.modeling.build import build_model
    from lazyrun.modeling.weights import load_weights

    if task_of(cfg).name != "detection":
        raise UserError("A .ts file is for detectors; other models can be exported as .onnx.")
    print("TorchScript is deprecated by PyTorch; a whole detector in an .onnx file takes its place.", file=sys.stderr)
    model = build_model(cfg)
    load_weights(model, args.weights, strict=True, source="--weights")
    try:
        image = instantiate(cfg.dataloader.test.mapper)({"file_name": str(args.image)})["image"]
    except OSError as e:
        raise UserError(f"Picture {args.image} cannot be read: {e}") from e
    deviation, names, objects = export_detector(model, args.output, image)
    return describe(names, deviation, f"{objects} objects in three images")


def write_pyramid(args: argparse.Namespace, cfg: "DictConfig") -> str:
    from lazyrun.inference.export import PixelPyramid, export_backbone
    from lazyrun.modeling.build import build_model
    from lazyrun.modeling.weights import load_weights

    model = build_model(cfg)
    load_weights(model, args.weights, strict=True, source="--weights")
    size = args.size or (cfg.data.get("image_size"),) * 2
    if None in size:
        raise UserError("The config has no data.image_size; name the size with --size HEIGHT WIDTH.")
    pyramid = PixelPyramid(model)
    deviation = export_backbone(pyramid, args.output, size, dynamic=args.dynamic)
    return describe(pyramid.names, deviation, "random images" + (" of two sizes" if args.dynamic else ""))


def describe(names: list[str], deviation: float, checked: str) -> str:
    return f"outputs {', '.join(names)}; deviates by {deviation:.1e} of the largest value on {checked}."


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_on_user_error():
        check_arguments(args)
        import convmae_det  # noqa: F401 (registers how pretraining files are loaded)
        from lazyrun.config.loading import load_config

        cfg = load_config(args.config_file, args.opts) if args.config_file else None
        if cfg is None or (args.output.suffix == ".onnx" and not args.pyramid):
            if not (write_classifier(args) if cfg is None else write_whole(args, cfg)):
                sys.exit(DIFFERENT)
            return
        text = write_trace(args, cfg) if args.output.suffix == ".ts" else write_pyramid(args, cfg)
    print(f"{args.output}: {text}")


if __name__ == "__main__":
    use_utf8()
    main()
