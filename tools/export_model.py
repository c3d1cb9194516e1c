#!/usr/bin/env python3
"""Export a detector for use without this project, and check the file against the model it was made from.

The suffix of --output decides what is written:
  .pt2   backbone and feature pyramid, torch.export
  .onnx  backbone and feature pyramid, ONNX (pip install -e '.[export]')
  .ts    the whole detector, a TorchScript trace; --image names a picture with objects in it
"""

import argparse
import logging
from pathlib import Path

from detectron2.config import instantiate

import convmae_det  # noqa: F401 (registers how pretraining files are loaded)
from lazyrun.config.loading import load_config
from lazyrun.config.task import task_of
from lazyrun.config.trust_option import add_trust_option
from lazyrun.inference.export import PixelPyramid, export_backbone, export_detector
from lazyrun.modeling.build import build_model
from lazyrun.modeling.weights import load_weights
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8

EXAMPLES = """
examples:
  python tools/export_model.py --config-file CONFIG.py --weights model_best.pth --output pyramid.onnx
  python tools/export_model.py --config-file CONFIG.py --weights model_best.pth --output pyramid.pt2 --dynamic
  python tools/export_model.py --config-file CONFIG.py --weights model_best.pth --output detector.ts --image one.jpg
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="LazyConfig .py file, or the config.yaml of a run")
    parser.add_argument("--weights", required=True, help="checkpoint of the detector")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .pt2, .onnx or .ts")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the images (default: data.image_size twice)"
    )
    parser.add_argument("--dynamic", action="store_true", help="leave height and width free (.pt2, .onnx)")
    parser.add_argument("--image", type=Path, help="picture with objects in it, to trace and compare with (.ts)")
    parser.add_argument("--force", action="store_true", help="replace --output if it exists")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    add_trust_option(parser)
    add_traceback_option(parser)
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    if args.output.suffix not in (".pt2", ".onnx", ".ts"):
        raise UserError(f"Output {args.output} must end in .pt2, .onnx or .ts.")
    if args.output.exists() and not args.force:
        raise UserError(f"Output {args.output} exists already; choose another name or pass --force to replace it.")
    if not args.output.parent.is_dir():
        raise UserError(f"Output {args.output} cannot be written: there is no directory {args.output.parent}.")
    if args.output.suffix == ".ts":
        if args.dynamic or args.size:
            raise UserError("A .ts file takes images of any size up to data.image_size: leave --size, --dynamic out.")
        if args.image is None:
            raise UserError("A .ts file is traced on a picture: name one with objects in it with --image.")
        if not args.image.is_file():
            raise UserError(f"Picture {args.image} does not exist; name one with --image.")


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_on_user_error():
        check_arguments(args)
        cfg = load_config(args.config_file, args.opts)
        if args.output.suffix == ".ts" and task_of(cfg).name != "detection":
            raise UserError("A .ts file is for detectors; of this model the backbone can be exported: .pt2 or .onnx.")
        model = build_model(cfg)
        load_weights(model, args.weights, strict=True, source="--weights")
        if args.output.suffix == ".ts":
            try:
                image = instantiate(cfg.dataloader.test.mapper)({"file_name": str(args.image)})["image"]
            except OSError as e:
                raise UserError(f"Picture {args.image} cannot be read: {e}") from e
            deviation, names, objects = export_detector(model, args.output, image)
            checked = f"{objects} objects in three images"
        else:
            size = args.size or (cfg.data.get("image_size"),) * 2
            if None in size:
                raise UserError("The config has no data.image_size; name the size with --size HEIGHT WIDTH.")
            pyramid = PixelPyramid(model)
            deviation, names = export_backbone(pyramid, args.output, size, dynamic=args.dynamic), pyramid.names
            checked = "random images" + (" of two sizes" if args.dynamic else "")
    print(f"{args.output}: outputs {', '.join(names)}; deviates by {deviation:.1e} of the largest value on {checked}.")


if __name__ == "__main__":
    use_utf8()
    main()
