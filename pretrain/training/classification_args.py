"""Command-line arguments of fine-tuning, linear probe and nearest neighbours; defaults are the published recipes."""

import argparse
from collections.abc import Sequence

from pretrain.common.commands import add_launcher_option, add_traceback_option
from pretrain.common.decoders import DEFAULT_DECODER
from pretrain.common.errors import UserError
from pretrain.common.precisions import PRECISIONS
from pretrain.names import CLASSIFIERS, VIDEO_CLASSIFIERS
from pretrain.training.args import (
    add_data_arguments,
    add_model_arguments,
    add_optimizer_arguments,
    add_run_arguments,
    check_data_arguments,
    check_model_arguments,
    check_run_arguments,
    take_sizes_of_file,
)
from pretrain.training.argument_checks import check_above_zero, check_at_least, check_in_range, check_seed
from pretrain.training.fsdp_args import add_fsdp_option, check_fsdp
from pretrain.training.shard_args import add_shard_window
from pretrain.training.video_args import (
    FINETUNE_CLIPS,
    PROBE_CLIPS,
    add_clip_arguments,
    add_clip_classifier_arguments,
    parse_with_recipe,
)

__all__ = ["parse_finetune_args", "parse_knn_args", "parse_linprobe_args"]

# ConvMAE's repository, after MAE (arXiv:2111.06377), tables 9 and 10; on eight GPUs, batches of 1024 and 4096.
FINETUNE = dict(batch_size=128, epochs=100, warmup_epochs=5.0, blr=5e-4, min_lr=1e-6, weight_decay=0.05)
LINPROBE = dict(batch_size=512, epochs=90, warmup_epochs=10.0, blr=0.1, min_lr=0.0, weight_decay=0.0)

FINETUNE_DESCRIPTION = """\
Fine-tune a pretrained ConvViT on labelled images, or evaluate a fine-tuned one.

  torchrun --nproc_per_node=8 -m pretrain.finetune --model convvit_base_patch16 --data_path imagenet \\
      --init_weights convmae_base.pth --output_dir output/finetuned
  python -m pretrain.finetune --eval --model convvit_base_patch16 --data_path imagenet \\
      --init_weights finetuned.pth --output_dir output/eval
"""
LINPROBE_DESCRIPTION = """\
Train a linear classifier on the features of a frozen ConvViT.

  torchrun --nproc_per_node=8 -m pretrain.linprobe --model convvit_base_patch16 --data_path imagenet \\
      --init_weights convmae_base.pth --output_dir output/linprobe
"""
KNN_DESCRIPTION = """\
Classify images by their nearest neighbours among training images, in the feature space of a frozen ConvViT.

  python -m pretrain.knn --model convvit_base_patch16 --data_path imagenet --init_weights convmae_base.pth \\
      --output_dir output/knn
"""


def parse_finetune_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of `python -m pretrain.finetune`.

    Raises:
        UserError: an unknown model, or a value out of range.
    """
    parser, augmentation = _training_parser("python -m pretrain.finetune", FINETUNE_DESCRIPTION)
    recipe = parser.add_argument_group("regularisation")
    recipe.add_argument("--layer_decay", type=float, default=0.65, help="learning rate ratio of adjacent layers [0.65]")
    recipe.add_argument("--drop_path", type=float, default=0.1, help="stochastic depth of the last block [0.1]")
    recipe.add_argument("--smoothing", type=float, default=0.1, help="label smoothing [0.1]")
    recipe.add_argument("--mixup", type=float, default=0.8, help="mixup alpha; 0: none [0.8]")
    recipe.add_argument("--cutmix", type=float, default=1.0, help="CutMix alpha; 0: none [1.0]")
    recipe.add_argument("--mixup_prob", type=float, default=1.0, help="how often a batch is mixed [1.0]")
    recipe.add_argument("--model_ema", type=float, default=0.0, metavar="DECAY", help="average weights; 0: none [0]")
    augmentation.add_argument(
        "--aa", default="rand-m9-mstd0.5-inc1", help="timm's AutoAugment policy, or none [rand-m9-mstd0.5-inc1]"
    )
    augmentation.add_argument("--color_jitter", type=float, default=0.0, help="without --aa; 0: none [0]")
    augmentation.add_argument("--reprob", type=float, default=0.25, help="random erasing's probability [0.25]")
    add_fsdp_option(parser)
    parser.set_defaults(**FINETUNE)
    args = _check_training(parse_with_recipe(parser, argv, FINETUNE_CLIPS))
    if (args.mixup or args.cutmix) and args.batch_size % 2:
        raise UserError(f"Mixup and CutMix pair images, so --batch_size must be even, got {args.batch_size}.")
    check_in_range(args, 0, 1, "smoothing", "drop_path", whole=False)
    check_in_range(args, 0, 1, "mixup_prob", "reprob")
    check_at_least(args, 0, "mixup", "cutmix", "color_jitter")
    check_above_zero(args, "layer_decay")
    check_fsdp(args)
    if args.model_ema and not 0 < args.model_ema < 1:
        raise UserError(f"--model_ema is a decay between 0 and 1, for example 0.9999, got {args.model_ema}.")
    return args


def parse_linprobe_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of `python -m pretrain.linprobe`.

    Raises:
        UserError: an unknown model, or a value out of range.
    """
    parser, augmentation = _training_parser("python -m pretrain.linprobe", LINPROBE_DESCRIPTION)
    augmentation.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="random crops and flips, as published; without, features are computed once and kept [on]",
    )
    parser.set_defaults(**LINPROBE)
    args = _check_training(parse_with_recipe(parser, argv, PROBE_CLIPS))
    if args.weight_decay:
        raise UserError(f"The linear probe's LARS runs without weight decay, got --weight_decay {args.weight_decay}.")
    return args


def parse_knn_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of `python -m pretrain.knn`.

    Raises:
        UserError: an unknown model, or a value out of range.
    """
    parser = _parser("python -m pretrain.knn", KNN_DESCRIPTION)
    run = parser.add_argument_group("run")
    run.add_argument("--k", type=int, default=20, help="neighbours that vote [20]")
    run.add_argument(
        "--temperature", type=float, default=0.07, help="their weights are exp(cosine / temperature) [0.07]"
    )
    run.add_argument("--batch_size", type=int, default=128, help="images per process [128]")
    run.add_argument("--amp", choices=PRECISIONS, help="mixed precision [bf16 on GPUs that have it]")
    run.add_argument(
        "--init_weights", default="", metavar="FILE", help="pretrained weights, as of pretrain.finetune [random ones]"
    )
    run.add_argument("--output_dir", required=True, metavar="DIR", help="for knn.json")
    run.add_argument("--device", default="cuda", help="cuda or cpu [cuda]")
    run.add_argument("--seed", type=int, default=0, help="of random weights [0]")
    args = parse_with_recipe(parser, argv, PROBE_CLIPS)
    args.decoder = args.decoder or DEFAULT_DECODER
    take_sizes_of_file(args)
    check_model_arguments(args, CLASSIFIERS | VIDEO_CLASSIFIERS)
    _check_data(args)
    check_at_least(args, 1, "k", "batch_size")
    check_seed(args)
    check_above_zero(args, "temperature")
    return args


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    """What all three have: the model and the data."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_argument_group("model")
    add_model_arguments(model, [*CLASSIFIERS, *VIDEO_CLASSIFIERS])
    model.add_argument(
        "--global_pool",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="classify the mean of all tokens [on]",
    )
    model.add_argument(
        "--cls_token",
        dest="global_pool",
        action="store_false",
        help="classify token 0 instead: the class token of convvitv2 models, elsewhere the upper left patch, as in the "
        "published linear-probe command",
    )
    video = parser.add_argument_group("video models")
    add_clip_arguments(video)
    add_clip_classifier_arguments(video)
    data = parser.add_argument_group("data")
    folder = (
        "folder with train/CLASS/ and val/CLASS/ folders of images, or of videos; or train/ and val/ with tar files of "
        "images; for videos also lists train.csv …"
    )
    add_data_arguments(data, folder)
    data.add_argument("--train_split", default="train", help="folder, or split of a Hugging Face data set [train]")
    data.add_argument("--val_split", default="val", help="likewise [val]")
    data.add_argument("--label_fraction", type=float, default=1.0, help="share of each class to train on [1]")
    data.add_argument("--crop_pct", type=float, help="centre crop of evaluation [0.875 at 64 to 224 pixels, else 1]")
    add_launcher_option(parser)
    add_traceback_option(parser)
    return parser


def _training_parser(prog: str, description: str) -> tuple[argparse.ArgumentParser, argparse._ArgumentGroup]:
    """What both kinds of training have; returns the parser and its group of augmentation."""
    parser = _parser(prog, description)
    add_shard_window(parser.add_argument_group("reading order"))
    augmentation = parser.add_argument_group("augmentation")
    augmentation.add_argument("--crop_min", type=float, default=0.08, help="smallest area of random crops [0.08]")
    add_optimizer_arguments(parser.add_argument_group("optimization"))
    run = parser.add_argument_group("run")
    add_run_arguments(run, "--finetune")
    run.add_argument("--eval", action="store_true", help="evaluate --init_weights (or --resume FILE), no training")
    run.add_argument("--eval_epochs", type=int, default=1, help="epochs between evaluations [1]")
    return parser, augmentation


def _check_data(args: argparse.Namespace) -> None:
    check_data_arguments(args)
    for name in ("label_fraction", "crop_pct"):
        if (share := getattr(args, name)) is not None and not 0 < share <= 1:
            raise UserError(f"--{name} must be above 0 and at most 1, got {share}.")


def _check_training(args: argparse.Namespace) -> argparse.Namespace:
    take_sizes_of_file(args)
    check_model_arguments(args, CLASSIFIERS | VIDEO_CLASSIFIERS)
    check_run_arguments(args)
    _check_data(args)
    check_at_least(args, 1, "eval_epochs")
    check_in_range(args, 0, 1, "crop_min")
    if args.eval and args.resume in ("", "auto") and not args.init_weights:
        raise UserError("--eval needs the file to evaluate: --init_weights FILE.")
    if args.eval:
        args.decoder = args.decoder or DEFAULT_DECODER  # a training that is resumed keeps its own
    return args
