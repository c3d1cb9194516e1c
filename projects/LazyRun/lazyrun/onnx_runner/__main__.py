"""Predict images with an exported model, without PyTorch: NumPy, ONNX Runtime and Pillow are all that is needed.

    python -m lazyrun.onnx_runner detector.onnx photos/ 'more/**/*.jpg' --output predicted

The output folder gets what tools/predict.py writes: overlays/, predictions.json (COCO results) and images.json; from a
segmentation model labels/ in place of predictions.json; from a classifier each class's probability.

exit code: 0 all went well; 1 the command cannot be carried out; 3 images that cannot be read were skipped
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lazyrun.onnx_runner.files import predict_files
from lazyrun.onnx_runner.images import find_images
from lazyrun.onnx_runner.metadata import OnnxFileError
from lazyrun.onnx_runner.model import OnnxModel
from lazyrun.slice_options import add_slice_options, slice_options

SOME_SKIPPED = 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lazyrun.onnx_runner", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="file of tools/export_model.py")
    parser.add_argument("images", nargs="+", help="images, folders, and patterns in quotes")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="least score drawn (default: %(default)s)")
    parser.add_argument("--providers", nargs="+", help="ONNX Runtime's, such as CUDAExecutionProvider (default: all)")
    add_slice_options(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        images = find_images(args.images, args.output)
        model = OnnxModel(args.model, providers=args.providers)
        options = {"score_threshold": args.score_threshold, **slice_options(parser, args)}
        unreadable = predict_files(model, images, args.output, **options)
    except (OnnxFileError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(f"{len(images) - len(unreadable)} images: {args.output}")
    if unreadable:
        names = ", ".join(str(path) for path in unreadable)
        print(f"error: {len(unreadable)} files cannot be read as images and were skipped: {names}", file=sys.stderr)
        return SOME_SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
