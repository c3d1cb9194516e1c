#!/usr/bin/env python3
"""Detect objects in images or videos with a trained detector, or segment them, and draw what is found.

    python tools/predict.py output/mine photos/ 'more/**/*.jpg' --output predicted

The first name is the folder of a run, whose config and best weights are taken. Both can be named instead:

    python tools/predict.py --config-file output/mine/config.yaml --weights output/mine/model_best.pth \\
        --input photos/ 'more/**/*.jpg' --output predicted

The output folder gets

  overlays/         each image (PNG or JPEG) or video (MP4) with boxes, masks, class names and scores
  predictions.json  everything detected, in COCO's results format
  images.json       which image has which image_id in predictions.json, and the classes
  crops/, masks/    with --save-crops, --save-masks: a PNG for each object

and from a segmentation model

  overlays/         each image or video under its class map, with a legend
  labels/           the class maps: PNG whose pixels are class numbers
  images.json       which label map belongs to which image, and which number is which class

exit code: 0 all went well; 1 the command cannot be carried out; 3 images that cannot be read, or
do not fit into memory, were skipped
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyrun.config.trust_option import add_trust_option
from lazyrun.slice_options import add_slice_options, slice_options
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8

if TYPE_CHECKING:
    from lazyrun.config.task import Task

SOME_SKIPPED = 3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("names", nargs="*", metavar="RUN_FOLDER IMAGES", help="a run, and images, folders, patterns and videos")
    add("--config-file", help="config of the model (default: that of RUN_FOLDER): any LazyConfig .py or .yaml file")
    add("--weights", help="checkpoint of the model (default: the best of RUN_FOLDER)")
    add("--input", nargs="+", default=[], help="images, folders, patterns in quotes, and videos, as after RUN_FOLDER")
    add("--output", type=Path, default=Path("predicted"), help="folder for the results (default: %(default)s)")
    add("--score-threshold", type=float, default=0.5, help="least score drawn, from 0 to 1 (default: %(default)s)")
    add("--batch-size", type=int, default=1, help="images predicted at a time (default: %(default)s)")
    add("--device", help="cuda, cuda:1, cpu, … (default: a GPU if there is one)")
    add("--save-crops", action="store_true", help="also write what is in each box")
    add("--save-masks", action="store_true", help="also write each object's mask, white on black")
    add("--resume", action="store_true", help="go on after a kill: skip the images that are done")
    add(
        "--annotations",
        type=Path,
        metavar="PATH",
        help="annotations in any format that training reads: ids of images and classes are taken from them, by name",
    )
    add_slice_options(parser)
    parser.epilog = "key=value among the names changes the config, such as test.tta.enabled=true"
    add_trust_option(parser)
    add_traceback_option(parser)
    args = parser.parse_intermixed_args()
    # `--input a.jpg key=value` reads the overrides as inputs.
    named = [*args.names, *args.input]
    args.opts = [name for name in named if "=" in name and not Path(name).exists()]
    args.names = [name for name in args.names if name not in args.opts]
    args.opts += [f"test.{key}={value}" for key, value in slice_options(parser, args).items()]
    args.run = None if args.config_file and args.weights else next(iter(args.names), None)
    args.input = [name for name in [*args.names[args.run is not None :], *args.input] if name not in args.opts]
    if args.run is None and not (args.config_file and args.weights):
        parser.error("name the folder of a run, or --config-file and --weights")
    if not args.input:
        parser.error("name images, folders, patterns or a video")
    if not 0 <= args.score_threshold <= 1:
        parser.error(f"--score-threshold must be from 0 to 1, got {args.score_threshold}")
    if args.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {args.batch_size}")
    return args


def find_inputs(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """The video and the images that are asked for; one of the two lists is empty."""
    from lazyrun.inference.inputs import find_images, is_video

    videos = [Path(name) for name in args.input if is_video(name)]
    missing = [video for video in videos if not video.is_file()]
    if missing:
        raise UserError(f"{missing[0]} does not exist.")
    others = [name for name in args.input if not is_video(name)]
    images = find_images(others, args.output) if others else []
    if len(videos) > 1 or (videos and images):
        raise UserError("Give images, or one video: their results go to one file.")
    return videos, images


def what_counts(args: argparse.Namespace) -> dict:
    """What results depend on; a job goes on with the same alone."""
    return {
        "config": str(args.config_file),
        "weights": str(args.weights),
        "overrides": args.opts,
        "annotations": str(args.annotations),
    }


def load_predictor(args: argparse.Namespace) -> "tuple[Task, Any]":
    """The task and the predictor of a config and weights, which are those of the run's folder unless they are named."""
    from detectron2.utils.logger import setup_logger

    import convmae_det  # noqa: F401 (registers how pretraining files are loaded)
    from lazyrun.config.loading import load_config
    from lazyrun.config.task import task_of
    from lazyrun.engine.run_folder import find_run
    from lazyrun.inference.shares import local_device
    from lazyrun.modeling.weights import weight_loader_packages

    if args.run is not None:
        config, weights = find_run(args.run)
        args.config_file, args.weights = args.config_file or str(config), args.weights or str(weights)
    cfg = load_config(args.config_file, args.opts)
    task = task_of(cfg)
    for name in dict.fromkeys(("lazyrun", *weight_loader_packages(), task.package)):
        setup_logger(name=name)
    device = args.device or local_device()
    return task, task.predictor(cfg, args.weights, device=device, batch_size=args.batch_size)


def main() -> None:
    args = parse_args()
    unreadable = []
    with exit_on_user_error():
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        from lazyrun.evaluation.truth import image_ids, read_listed, use_ids_of
        from lazyrun.inference.shares import Shares
        from lazyrun.inference.writer import predict_images, predict_video

        videos, images = find_inputs(args)
        truth = read_listed(args.annotations) if args.annotations else None
        ids = image_ids(images, truth) if truth else {image: number for number, image in enumerate(images, start=1)}
        task, predictor = load_predictor(args)
        if truth and task.name == "detection":  # the numbers of a label map are the model's own
            predictor.categories = use_ids_of(truth, predictor.categories)
        shares = Shares()
        if videos and shares.count > 1:
            raise UserError("torchrun shares images; predict a video in one process.")
        journal = shares.open_journal(args.output, what_counts(args), resume=args.resume and not videos)
        writer = task.writer(
            args.output,
            predictor,
            score_threshold=args.score_threshold,
            crops=args.save_crops,
            masks=args.save_masks,
            journal=journal,
        )
        try:
            for video in videos:
                predict_video(writer, video)
            if images:
                done = journal.done() if args.resume else set()
                chosen = [image for image in shares.own(images) if str(image) not in done]
                unreadable = predict_images(writer, images, ids, chosen=chosen)
            unreadable = shares.collect(unreadable)
        finally:
            if shares.is_first:
                journal.merge()
                if journal.images:  # a command that is refused leaves the results of an earlier one alone
                    writer.close()
        if not shares.is_first:
            return
        journal.remove()
    import torch

    from pretrain.common.devices import peak_memory_bytes

    memory = peak_memory_bytes(torch.device("cpu")) / 1e6
    print(f"{writer.summary()}, at most {memory:.0f} MB of memory: {args.output}")
    if unreadable:
        names = ", ".join(str(path) for path in unreadable)
        print(
            f"error: {len(unreadable)} files cannot be read as images, or used, and were skipped: {names}",
            file=sys.stderr,
        )
        sys.exit(SOME_SKIPPED)


if __name__ == "__main__":
    use_utf8()
    main()
