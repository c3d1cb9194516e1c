"""Command-line arguments of pretraining, most of which every command shares, and the recipes behind their defaults."""

import argparse
from argparse import _ArgumentGroup as Group  # argparse has no public name for it
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pretrain.common.commands import add_launcher_option, add_traceback_option
from pretrain.common.decoders import DECODERS, DEFAULT_DECODER
from pretrain.common.errors import UserError
from pretrain.common.precisions import PRECISIONS
from pretrain.names import MODELS, VIDEO_MODELS, has_class_token, per_stage
from pretrain.training.argument_checks import check_above_zero, check_at_least, check_in_range, check_paths, check_seed
from pretrain.training.fsdp_args import add_fsdp_option, check_fsdp
from pretrain.training.shard_args import add_shard_window
from pretrain.training.target_args import add_target_arguments, check_target_arguments
from pretrain.training.video_args import PRETRAIN_CLIPS, add_clip_arguments, parse_with_recipe

__all__ = [
    "PROBE_DEFAULTS",
    "add_data_arguments",
    "add_model_arguments",
    "add_optimizer_arguments",
    "add_run_arguments",
    "check_above_zero",
    "check_at_least",
    "check_data_arguments",
    "check_in_range",
    "check_model_arguments",
    "check_run_arguments",
    "check_seed",
    "parse_args",
    "take_sizes_of_file",
]

# Published recipes: ConvMAE (arXiv:2205.03892) and FastConvMAE's repository; batch sizes are per process. Of ConvMAE-v2
# (arXiv:2303.05475) only the epochs are; the rest is of unmasked_teacher (arXiv:2303.16058), the nearest open recipe.
RECIPES = {
    "convmae": dict(blr=1.5e-4, epochs=1600, warmup_epochs=40.0, batch_size=128),
    "fastconvmae": dict(blr=6e-4, epochs=50, warmup_epochs=10.0, batch_size=64),
    "convmaev2": dict(blr=1.5e-4, epochs=200, warmup_epochs=40.0, batch_size=128),
}

PROBE_DEFAULTS = dict(probe_k=20, probe_label_fraction=1.0, probe_train_split="train", probe_val_split="val")
"""Options of `pretrain.knn`, with its defaults, that pretraining has under these names."""

LARGEST_RATE = 1e6
"""Nothing is learned at such a rate, and much larger ones are no numbers of 32 bits."""

FOLDER = (
    "folder of images, with or without class folders, and with or without train/ and val/; a .tar file or a folder of "
    "tar shards; for video models a folder of videos, or a list of them"
)

DESCRIPTION = """\
Pretrain ConvMAE, FastConvMAE or ConvMAE-v2 on a folder of images; labels are not needed.

A first run, on a CPU, in about a minute:
  python -m pretrain --model convmae_convvit_tiny_patch16 --data_path IMAGES --output_dir output/tiny \\
      --input_size 128 --batch_size 32 --epochs 3 --warmup_epochs 1 --blr 3e-3 --device cpu

Eight GPUs, the published recipe:
  torchrun --nproc_per_node=8 -m pretrain --model convmae_convvit_base_patch16 --data_path imagenet \\
      --output_dir output/convmae_base --batch_size 256 --resume auto
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pretrain", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model, data, optimization, run = (
        parser.add_argument_group(title) for title in ("model", "data", "optimization", "run")
    )
    add_model_arguments(model, [*MODELS, *VIDEO_MODELS])
    add_pretraining_arguments(model)
    add_target_arguments(parser.add_argument_group("targets"))
    video = parser.add_argument_group("video models")
    add_clip_arguments(video)
    video.add_argument(
        "--multi_scale",
        action=argparse.BooleanOptionalAction,
        help="add stages 1 and 2 to what the decoder sees [on]",
    )
    add_data_arguments(data)
    add_shard_window(data)
    add_optimizer_arguments(optimization)
    optimization.add_argument("--fp32_decoder", action="store_true", help="keep the decoder out of mixed precision")
    add_run_arguments(run)
    run.add_argument("--picture_epochs", type=int, help="epochs between reconstruction pictures [a tenth of all]")
    add_fsdp_option(parser)
    add_probe_arguments(parser.add_argument_group("nearest neighbours on the encoder, while it is trained"))
    add_launcher_option(parser)
    add_traceback_option(parser)
    return parser


def add_model_arguments(group: Group, models: Iterable[str]) -> None:
    group.add_argument("--model", required=True, metavar="NAME", help="one of " + ", ".join(models))
    group.add_argument(
        "--input_size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width [by model, mostly 224]"
    )
    group.add_argument("--in_chans", type=int, default=3, help="channels: 3, or 1 for grey images [3]")
    group.add_argument(
        "--patch_size", type=int, nargs=3, metavar="N", help="downsampling of each of the three stages [by model]"
    )
    group.add_argument(
        "--mlp_ratio",
        type=float,
        nargs="+",
        metavar="RATIO",
        help="hidden width of the MLPs over that of the tokens, for all stages or for each [4]",
    )
    group.add_argument(
        "--act_checkpoint", action="store_true", help="recompute activations in the backward pass: slower, less memory"
    )
    group.add_argument("--compile", action="store_true", help="run through torch.compile")


def add_pretraining_arguments(group: Group) -> None:
    group.add_argument(
        "--mask_ratio", type=float, default=0.75, help="share of patches that is masked [0.75; video: 0.9]"
    )
    group.add_argument(
        "--norm_pix_loss",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="predict patches normalised by their own mean and variance [on, as in the recipes]",
    )


def add_probe_arguments(group: Group) -> None:
    group.add_argument(
        "--probe",
        default="",
        metavar="PATH",
        help="labelled images, as --data_path of pretrain.knn; leaves training as it is",
    )
    group.add_argument("--probe_epochs", type=int, help="epochs between measurements [a tenth of all]")
    group.add_argument("--probe_k", type=int, help="neighbours that vote [20]")
    group.add_argument(
        "--probe_label_fraction", type=float, metavar="SHARE", help="of each class's training images [1]"
    )
    group.add_argument("--probe_train_split", metavar="SPLIT", help="[train]")
    group.add_argument("--probe_val_split", metavar="SPLIT", help="[val]")


def add_data_arguments(group: Group, folder: str = FOLDER) -> None:
    """`folder` says how a folder has to be laid out."""
    group.add_argument(
        "--data_path",
        required=True,
        metavar="PATH",
        help=f"{folder}; hfds/NAME for a Hugging Face data set; or fashion_mnist:FOLDER",
    )
    group.add_argument(
        "--decoder",
        choices=DECODERS,
        help=f"what decodes and resizes images: {DEFAULT_DECODER}, the faster one, or Pillow [that of the run that is "
        f"resumed, else {DEFAULT_DECODER}]",
    )
    group.add_argument("--num_workers", type=int, default=8, help="processes that read images [8]")
    group.add_argument(
        "--max_corrupt", type=float, default=0.01, metavar="SHARE", help="share of unreadable images tolerated [0.01]"
    )


def add_optimizer_arguments(group: Group) -> None:
    group.add_argument("--batch_size", type=int, help="images per process and micro-batch [by recipe]")
    group.add_argument("--accum_iter", type=int, default=1, help="micro-batches per optimizer step [1]")
    group.add_argument("--epochs", type=int, help="[by recipe]")
    group.add_argument("--warmup_epochs", type=float, help="[by recipe]")
    group.add_argument("--blr", type=float, help="learning rate per 256 images of effective batch [by recipe]")
    group.add_argument("--lr", type=float, help="learning rate itself, in place of --blr")
    group.add_argument("--min_lr", type=float, default=0.0, help="learning rate at the end [%(default)s]")
    group.add_argument("--weight_decay", type=float, default=0.05, help="none on biases and norms [%(default)s]")
    group.add_argument("--clip_grad", type=float, default=0.0, metavar="NORM", help="largest gradient norm; 0: any [0]")
    group.add_argument("--amp", choices=PRECISIONS, help="mixed precision [bf16 on GPUs that have it, else off]")
    group.add_argument(
        "--max_failures", type=int, default=5, help="non-finite steps in a row after which to give up [5]"
    )


def add_run_arguments(group: Group, *other_names: str) -> None:
    """`other_names` are further names of --init_weights."""
    group.add_argument("--output_dir", required=True, metavar="DIR", help="for checkpoints, logs and pictures")
    group.add_argument(
        "--resume",
        default="",
        metavar="auto|FILE",
        help="continue: from the newest checkpoint in --output_dir, or FILE",
    )
    group.add_argument(
        "--init_weights",
        *other_names,
        default="",
        metavar="FILE",
        help="weights to start from: own FILE, published name, https:// or hf:// address; with --resume auto only if "
        "there is no checkpoint",
    )
    group.add_argument("--device", default="cuda", help="cuda or cpu [cuda]")
    group.add_argument("--seed", type=int, default=0, help="[0]")
    group.add_argument("--save_epochs", type=int, default=1, help="epochs between checkpoints [1]")
    group.add_argument("--save_steps", type=int, default=0, help="optimizer steps between checkpoints too; 0: none [0]")
    group.add_argument("--keep_checkpoints", type=int, default=2, help="newest checkpoints to keep [2]")
    group.add_argument("--log_steps", type=int, default=20, help="optimizer steps between lines on the console [20]")
    group.add_argument("--max_steps", type=int, default=0, help="stop after so many optimizer steps; 0: never [0]")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments with every default of the model's recipe filled in.

    Raises:
        UserError: an unknown model, or a value out of range.
    """
    args = parse_with_recipe(build_parser(), argv, PRETRAIN_CLIPS)
    take_sizes_of_file(args)
    check_model_arguments(args, MODELS | VIDEO_MODELS)
    for name, value in RECIPES.get(args.model.partition("_")[0], {}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.picture_epochs is None:
        args.picture_epochs = max(1, args.epochs // 10)
    check_run_arguments(args)
    check_at_least(args, 1, "picture_epochs")
    check_target_arguments(args)
    check_fsdp(args)
    _fill_in_probe(args)
    return args


def _fill_in_probe(args: argparse.Namespace) -> None:
    """The defaults of the options that begin with `--probe_`; raises UserError for one that has no effect."""
    for name, value in {"probe_epochs": max(1, args.epochs // 10), **PROBE_DEFAULTS}.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
        elif not args.probe:
            raise UserError(f"--{name} needs the labelled images of --probe.")
    check_at_least(args, 1, "probe_epochs")


def check_model_arguments(args: argparse.Namespace, models: Mapping[str, dict]) -> None:
    """Fills in the sizes that belong to the model; raises UserError if there is no such model or size."""
    if args.model not in models:
        raise UserError(f"There is no model {args.model!r}; choose one of {', '.join(models)}.")
    config = models[args.model]
    if args.patch_size is None:
        args.patch_size = list(config.get("patch_size", (4, 2, 2)))
    ratios = args.mlp_ratio or [4.0]
    args.mlp_ratio = list(per_stage("--mlp_ratio", ratios if len(ratios) > 1 else ratios[0]))
    if args.input_size is None:
        args.input_size = [config.get("img_size", 224)]
    if len(args.input_size) > 2:
        raise UserError(f"--input_size takes a side, or height and width, got {args.input_size}.")
    args.input_size = (args.input_size * 2)[:2]
    if not 0 < min(args.mlp_ratio) <= max(args.mlp_ratio) < float("inf"):
        raise UserError(f"--mlp_ratio must be above 0, got {args.mlp_ratio}.")
    for name in ("input_size", "patch_size"):
        if min(getattr(args, name)) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}.")


def take_sizes_of_file(args: argparse.Namespace) -> None:
    """Fills in --patch_size and --mlp_ratio of a ConvMAE-v2 model from the file it starts from: the published L and H
    files have others than their names say.

    Raises:
        UserError: the file is no checkpoint, or cannot be fetched.
    """
    if has_class_token(args.model) and args.init_weights:
        from pretrain.checkpoints import published, recognition  # need PyTorch

        path = published.local_weights(args.init_weights)
        if Path(path).is_file() and (sizes := recognition.recognise(path).sizes):  # a missing one is told of later
            args.patch_size = args.patch_size or list(sizes.patch_size)
            args.mlp_ratio = args.mlp_ratio or sizes.mlp_ratios


def check_run_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for values out of range, and for ones that contradict each other."""
    if args.resume not in ("", "auto") and args.init_weights:
        raise UserError("--resume FILE continues a run and --init_weights begins a new one; give only one of them.")
    check_data_arguments(args)
    check_at_least(args, 1, "batch_size", "accum_iter", "epochs", "save_epochs", "keep_checkpoints")
    check_at_least(args, 1, "log_steps", "max_failures")
    check_at_least(args, 0, "save_steps", "max_steps", "shard_window")
    check_seed(args)
    check_at_least(args, 0, "warmup_epochs", "min_lr", "weight_decay", "clip_grad")
    check_above_zero(args, "blr", "lr")
    for name in ("blr", "lr", "min_lr", "weight_decay"):
        if (value := getattr(args, name)) is not None and value > LARGEST_RATE:
            raise UserError(f"--{name} must be at most {LARGEST_RATE:g}, got {value}.")


def check_data_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for paths without a name, and for values out of range of :func:`add_data_arguments`."""
    check_paths(args)
    check_at_least(args, 0, "num_workers")
    check_in_range(args, 0, 1, "max_corrupt")
