"""A pretraining to plan, from the arguments of `python -m pretrain`."""

import argparse
from collections.abc import Callable, Sequence

import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from pretrain.common.errors import UserError
from pretrain.common.planning.fake import unfilled
from pretrain.common.planning.plan import Training
from pretrain.data.labelled import is_video
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.models.mixture import PIXELS
from pretrain.training.args import parse_args
from pretrain.training.pretraining import make_model
from pretrain.training.schedule import steps_per_epoch
from pretrain.training.sharding import blocks_of
from pretrain.training.video_pretraining import make_video_model

__all__ = ["pretraining_to_plan"]

NEEDED = {"--data_path": "-", "--output_dir": "-"}
"""Options that a run must have and a plan has no use for."""


def pretraining_to_plan(argv: Sequence[str], gpus: int, images: int) -> Training:
    """The training that these options of `python -m pretrain` ask for, with a model that has no values.

    Args:
        argv: options of `python -m pretrain`; --data_path and --output_dir may be left out.
        gpus: processes of the run.
        images: of the training set.

    Raises:
        UserError: options out of range, targets other than pixels, or too few images for a step.
    """
    given = {option.partition("=")[0] for option in argv}
    missing = [f"{name}={value}" for name, value in NEEDED.items() if name not in given]
    args = parse_args([*argv, *missing])
    if list(args.targets) != [PIXELS] or args.mimic:
        raise UserError("Plans are for pixels alone: leave out --targets and --mimic, whose teachers come on top.")
    video = is_video(args)
    model = unfilled(lambda: make_video_model(args) if video else make_model(args))
    steps = args.epochs * steps_per_epoch(images, args.batch_size, args.accum_iter, gpus)
    if not steps:
        raise UserError(
            f"--images {images} give no optimizer step: one needs at least {args.batch_size * gpus} (--batch_size "
            f"{args.batch_size} on {gpus} GPU(s)); lower --batch_size."
        )
    return Training(
        name=args.model,
        model=model,
        make_forward=_make_forward(args, video),
        make_optimizer=lambda m: torch.optim.AdamW(
            param_groups_weight_decay(m, args.weight_decay), lr=1e-3, betas=(0.9, 0.95), fused=True
        ),
        probes=(8, 16) if video else (32, 64),
        batch_size=args.batch_size,
        micro_batches=args.accum_iter,
        gpus=gpus,
        steps=min(steps, args.max_steps) if args.max_steps else steps,
        noun="clip" if video else "image",
        units=blocks_of(model) if args.fsdp and gpus > 1 else None,
    )


def _make_forward(args: argparse.Namespace, video: bool) -> Callable[[nn.Module, int], Callable[[], torch.Tensor]]:
    clip = (args.num_frames,) if video else ()

    def make_forward(model: nn.Module, batch_size: int) -> Callable[[], torch.Tensor]:
        model.train()
        model.fp32_decoder = args.fp32_decoder
        device, (rows, columns) = next(model.parameters()).device, model.grid_size  # type: ignore[misc]
        imgs = torch.empty(batch_size, args.in_chans, *clip, *args.input_size, device=device)
        noise = torch.empty(batch_size, rows * columns, device=device)
        loss = ReconstructionLoss(model)
        return lambda: loss(imgs, args.mask_ratio, noise)

    return make_forward
