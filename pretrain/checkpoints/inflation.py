"""Video weights from image weights, so that a clip of one repeated frame gives what the image gives."""

from dataclasses import dataclass

import torch

from pretrain.checkpoints.convert import Target, convert
from pretrain.checkpoints.grids import grid_text
from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.recognition import Checkpoint
from pretrain.checkpoints.report import ConversionReport
from pretrain.common.errors import UserError
from pretrain.models.video.autoencoder import VideoConvMAE
from pretrain.models.video.classifier import VideoConvViT

__all__ = ["ClipShape", "inflate"]

_LEFT_OUT = {
    Part.DECODER: "the decoder of clips predicts cubes, and has other sizes",
    Part.CLS_TOKEN: "clips have no class token",
}


@dataclass(frozen=True)
class ClipShape:
    """What an image model lacks: frames of a clip and of a time slot, and the slots that convolutions span."""

    num_frames: int = 16
    tubelet_size: int = 2
    conv_frames: int = 1

    @classmethod
    def of(cls, model: VideoConvMAE | VideoConvViT) -> "ClipShape":
        return cls(model.num_frames, model.tubelet_size, model.conv_frames)

    @property
    def slots(self) -> int:
        return self.num_frames // self.tubelet_size


def inflate(
    checkpoint: Checkpoint, target: Target, clip: ClipShape
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """Converts an image file to a video model for pretraining or classification.

    The first patch embedding is spread over the frames of a slot, a 5×5 kernel becomes the middle of a 3×5×5 one, and
    positions are the same in every slot. Attention over equal copies of the tokens gives what attention over the tokens
    gives; so, for one repeated frame, every slot has the image's features.

    Args:
        checkpoint: of an image model.
        target: pretraining or classification.
        clip: what the video model has and the image model lacks.

    Returns:
        the tensors by name and the report.

    Raises:
        UserError: there is no such conversion.
    """
    if checkpoint.kind.family != "ConvViT" or target not in (Target.CLASSIFIER, Target.PRETRAIN):
        raise UserError(
            f"{checkpoint.source} ({checkpoint.kind.name}) cannot be inflated to a video model for {target.value}: "
            "that goes from image files with a ConvViT to pretraining or classification."
        )
    if clip.num_frames < 1 or clip.tubelet_size < 1 or clip.num_frames % clip.tubelet_size:
        raise UserError(f"num_frames {clip.num_frames} is not a multiple of tubelet_size {clip.tubelet_size}.")
    state, report = convert(checkpoint, target)
    report.target = f"{target.value}, video"
    for name in list(state):
        reason = _LEFT_OUT.get(checkpoint.kind.part_of(name) or Part.TRUNK)
        if reason:
            del state[name]
            report.dropped[report.take_back(name)] = reason
    if target is Target.PRETRAIN:
        report.missing["decoder_* and mask_token"] = "pretraining initialises them"
    _inflate_embedding(state, clip.tubelet_size, report)
    if clip.conv_frames > 1:
        _inflate_kernels(state, clip.conv_frames, report)
    if "pos_embed" in state:
        _repeat_positions(state, checkpoint, clip.slots, report)
    return state, report


def _inflate_embedding(state: dict[str, torch.Tensor], tubelet_size: int, report: ConversionReport) -> None:
    name = "patch_embed1.proj.weight"
    # (O, C, p, q) -> (O, C, f, p, q)
    state[name] = (state[name].unsqueeze(2) / tubelet_size).repeat(1, 1, tubelet_size, 1, 1)
    report.resized[name] = f"spread over {tubelet_size} frames, each with 1/{tubelet_size} of it"


def _inflate_kernels(state: dict[str, torch.Tensor], frames: int, report: ConversionReport) -> None:
    names = [n for n in state if n.startswith(("blocks1.", "blocks2.")) and n.endswith(".attn.weight")]
    for name in names:
        kernel = state[name]
        inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
        inflated[:, :, frames // 2] = kernel
        state[name] = inflated
    report.resized[f"{len(names)} depthwise kernels"] = f"the middle of {frames}x5x5, zeros around it"


def _repeat_positions(
    state: dict[str, torch.Tensor], checkpoint: Checkpoint, slots: int, report: ConversionReport
) -> None:
    pos_embed = state["pos_embed"]
    grid, has_slot = checkpoint.grid(pos_embed)
    state["pos_embed"] = pos_embed[:, int(has_slot) :].repeat(1, slots, 1)
    report.grid = grid_text((slots, *grid))
    report.resized["pos_embed"] = f"grid {grid_text(grid)} repeated in {slots} time slots"
