"""Benchmarks: `pretrain`, our pretraining step against the published algorithm and a plain MAE; `video`, the step on
clips against a dense computation, and decoding; `loader`, images a core reads in a second; `detect`, the detector and
its backbone against the published one."""

import argparse
import sys
from pathlib import Path

from lazyrun.config.trust_option import add_trust_option
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.precisions import PRECISIONS
from pretrain.common.temporary import save_json
from pretrain.common.utf8 import use_utf8
from pretrain.names import LOADER_TRANSFORMS, MODELS, VIDEO_MODELS

COUNTS = ("rounds", "num_frames", "threads", "batch_size", "batch_sizes", "input_size", "sizes", "images")
LEAST = {"num_workers": 0} | dict.fromkeys(COUNTS, 1)
CONFIG = "projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py"


def add_pretrain_parser(subcommands) -> None:
    parser = subcommands.add_parser(
        "pretrain",
        help="a forward and backward pass of ConvMAE or FastConvMAE",
        description="Times forward + backward of the published dense computation, of ours with the same weights and "
        "masks, and of MAE ViT-B, turn by turn, and reports medians. Saved activations are what autograd keeps "
        "between the two passes, weights not counted.",
    )
    parser.add_argument("--model", default="convmae_convvit_base_patch16", choices=MODELS, metavar="NAME")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--input_size", type=int, default=224)
    parser.add_argument("--compile", action="store_true", help="run ours through torch.compile")
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="TARGET",
        help="instead, ours with pixels alone and with each of these beside them, as --targets of pretraining takes "
        "them; teachers of timm have random weights",
    )
    parser.set_defaults(run=run_pretrain)
    add_common_arguments(parser, rounds=5)


def add_video_parser(subcommands) -> None:
    parser = subcommands.add_parser(
        "video",
        help="a forward and backward pass of VideoConvMAE, and the decoding of clips",
        description="Times forward + backward of a dense masked computation and of ours with the same weights and "
        "tubes, turn by turn, and reports medians. With --videos, also how fast one core makes clips of them, and what "
        "share of steps waits for clips.",
    )
    parser.add_argument("--model", default="videoconvmae_convvit_base_patch16", choices=VIDEO_MODELS, metavar="NAME")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--input_size", type=int, default=224)
    parser.add_argument("--num_frames", type=int, default=16)
    parser.add_argument("--conv_frames", type=int, choices=[1, 3], default=1, help="kernels 1x5x5 or 3x5x5")
    parser.add_argument("--videos", default="", metavar="PATH", help="videos to decode")
    parser.add_argument("--num_workers", type=int, default=1, help="processes that decode while steps are taken")
    parser.set_defaults(run=run_video)
    add_common_arguments(parser, rounds=3)


def add_loader_parser(subcommands) -> None:
    parser = subcommands.add_parser(
        "loader",
        help="reading, cropping and normalising image files",
        description="Times how fast one core makes batches of image files: ours with each --decoder, timm's loader and "
        "torchvision's, with the same crops, turn by turn in this process, and reports medians.",
    )
    parser.add_argument("--data_path", required=True, metavar="FOLDER", help="folder of images")
    parser.add_argument("--transforms", nargs="+", choices=LOADER_TRANSFORMS, default=["pretrain"], help="[pretrain]")
    parser.add_argument("--images", type=int, default=320, help="read in each round [320]")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--input_size", type=int, default=224)
    parser.set_defaults(run=run_loader)
    add_rounds(parser, 5)


def add_detect_parser(subcommands) -> None:
    parser = subcommands.add_parser(
        "detect",
        help="training steps and inference of a detector and of its backbone",
        description="Times a detector, and its transformer alone, against the published computation with the same "
        "weights, turn by turn, and reports medians; MIMDet at several sample ratios. Images and ground truth are made "
        "up. Saved activations are what autograd keeps between forward and backward pass, weights not counted.",
    )
    parser.add_argument("--config-file", default=CONFIG, help="LazyConfig (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=["backbone", "model"], default=["backbone", "model"])
    parser.add_argument("--modes", nargs="+", choices=["train", "inference"], default=["train", "inference"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[512], metavar="PIXELS", help="sides of the images")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1], metavar="N")
    parser.add_argument("--act_checkpoint", action="store_true", help="in training, ours with checkpointing too")
    parser.add_argument("--find-batch", action="store_true", help="search the largest batch that trains instead")
    parser.add_argument("--memory-limit", type=float, metavar="GB", help="what --find-batch may keep on a CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config, after a --")
    parser.set_defaults(run=run_detect)
    add_common_arguments(parser, rounds=3)


def add_common_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    add_trust_option(parser)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", choices=PRECISIONS, default="off")
    parser.add_argument("--threads", type=int, help="CPU threads")
    add_rounds(parser, rounds)


def add_rounds(parser: argparse.ArgumentParser, rounds: int) -> None:
    add_traceback_option(parser)
    parser.add_argument("--rounds", type=int, default=rounds)


# What takes seconds to import is imported in the functions, so that --help and mistakes in the arguments need not wait.


def run_pretrain(args: argparse.Namespace) -> None:
    from pretrain.benchmarks.pretraining import benchmark_pretrain
    from pretrain.benchmarks.targets import benchmark_targets

    if args.targets:
        report = benchmark_targets(
            args.model, args.batch_size, args.input_size, args.device, args.amp, args.rounds, args.targets
        )
        sys.stdout.write(report + "\n")
        return
    report = benchmark_pretrain(
        args.model, args.batch_size, args.input_size, args.device, args.amp, args.rounds, args.compile
    )
    sys.stdout.write(report + "\n")


def run_video(args: argparse.Namespace) -> None:
    from pretrain.benchmarks.video import benchmark_decoding, benchmark_video

    sizes = (args.batch_size, args.input_size, args.num_frames)
    report = benchmark_video(args.model, *sizes, args.conv_frames, args.device, args.amp, args.rounds)
    sys.stdout.write(report + "\n")
    if args.videos:
        report = benchmark_decoding(args.videos, args.model, *sizes, args.num_workers, args.device, 3 * args.rounds)
        sys.stdout.write(report + "\n")


def run_loader(args: argparse.Namespace) -> None:
    from pretrain.benchmarks.loader import benchmark_loader

    for kind in args.transforms:
        sizes = (args.images, args.batch_size, args.input_size)
        sys.stdout.write(benchmark_loader(args.data_path, kind, *sizes, args.rounds) + "\n\n")


def run_detect(args: argparse.Namespace) -> None:
    import torch

    from convmae_det.benchmark import published_and_ours
    from lazyrun.benchmarks.detector import Case, find_batch, measure, table
    from lazyrun.benchmarks.models import build_detector
    from lazyrun.config.loading import load_config
    from lazyrun.config.task import task_of
    from mimdet import MIMDetBackbone
    from mimdet.benchmark import at_sample_ratios
    from pretrain.common.measure import hardware

    cfg, device = load_config(args.config_file, args.opts), torch.device(args.device)
    if task_of(cfg).name != "detection":
        raise UserError(f"{args.config_file} is not a detector's config, and only detectors are measured here.")
    rows, batches = [], []
    for size in args.sizes:
        model = build_detector(cfg, size, device)
        is_mimdet = isinstance(getattr(model.backbone, "bottom_up", None), MIMDetBackbone)
        variants = at_sample_ratios if is_mimdet else published_and_ours
        for part in args.parts:
            if args.find_batch:
                case = Case(part, "train", size, 1, args.amp, args.act_checkpoint)
                batches.append(
                    {"part": part, "size": size, "batch_size": find_batch(model, case, args.memory_limit, variants)}
                )
                continue
            for mode in args.modes:
                for batch_size in args.batch_sizes:
                    case = Case(part, mode, size, batch_size, args.amp, args.act_checkpoint)
                    rows += measure(model, case, args.rounds, variants)
    title = f"{args.config_file}, {hardware(device)}, torch {torch.__version__}, median of {args.rounds} rounds\n\n"
    if args.find_batch:
        for found in batches:
            largest = ", ".join(f"{name} {n}" for name, n in found["batch_size"].items())
            sys.stdout.write(f"{found['part']}, {found['size']} pixels, amp {args.amp}: largest batch {largest}\n")
    else:
        sys.stdout.write(title + table(rows) + "\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        save_json({"title": title.strip(), "rows": batches if args.find_batch else rows}, args.json)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    subcommands = parser.add_subparsers(required=True, metavar="{pretrain,video,loader,detect}")
    add_pretrain_parser(subcommands)
    add_video_parser(subcommands)
    add_loader_parser(subcommands)
    add_detect_parser(subcommands)
    args = parser.parse_args()
    with exit_on_user_error():
        for name, least in LEAST.items():
            given = getattr(args, name, None)
            if any(n < least for n in (given if isinstance(given, list) else [given]) if n is not None):
                raise UserError(f"--{name} must be at least {least}, got {given}.")
        if getattr(args, "memory_limit", None) is not None and not (args.find_batch and args.memory_limit > 0):
            raise UserError(f"--memory-limit {args.memory_limit:g} is of --find-batch, and must be above 0.")
        import torch

        from pretrain.common.devices import check_device

        check_device(getattr(args, "device", "cpu"))
        if getattr(args, "threads", None):
            torch.set_num_threads(args.threads)
        args.run(args)


if __name__ == "__main__":
    use_utf8()
    main()
