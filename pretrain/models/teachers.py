"""Teachers: networks whose features of whole images are what a masked autoencoder learns to predict.

Each runs in evaluation mode and without gradients, once per image however many masked views there are of it, in the
autocast around it. Nothing of it is in the weights that are trained.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import PretrainedCfg
from torch import nn

from pretrain.common.errors import UserError
from pretrain.common.files import load_checkpoint
from pretrain.models.autoencoder import DECODER_PREFIXES
from pretrain.models.classifier import ConvViT
from pretrain.models.encoder import ConvMAEEncoder

__all__ = ["EmaTeacher", "Normalisation", "Teacher", "convvit_teacher", "ema_decay", "timm_teacher"]

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel."""


class Teacher(nn.Module):
    """Features of whole images on the grid of a student's patches.

    Args:
        network: the frozen network.
        grid_of: from `network` and images to a grid of features `(B, dim, h, w)`.
        dim: channels of its features.
        img_size: height and width that the network takes; images of another size are resized, bicubically.
        normalisation: mean and standard deviation that it was trained with, for as many channels as it takes.
        students: those that the images come with.
    """

    mean: torch.Tensor
    std: torch.Tensor
    student_mean: torch.Tensor
    student_std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        grid_of: Callable[[Any, torch.Tensor], torch.Tensor],
        dim: int,
        img_size: Sequence[int],
        normalisation: Normalisation,
        students: Normalisation,
    ):
        super().__init__()
        self.network, self.grid_of, self.dim, self.img_size = network, grid_of, dim, tuple(img_size)
        self.renormalises = [list(values) for values in normalisation] != [list(values) for values in students]
        names = ("mean", "std", "student_mean", "student_std")
        for name, values in zip(names, (*normalisation, *students), strict=True):
            # (C,) -> (C, 1, 1)
            self.register_buffer(name, torch.tensor(list(values)).view(-1, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, imgs: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        """
        Args:
            imgs: `(B, C, H, W)`, normalised as the student's.
            grid_size: rows and columns of the student's patches; features of another grid are resized, bilinearly.

        Returns:
            float32 `(B, L, dim)`, patches in image order.
        """
        if self.renormalises:
            imgs = (imgs * self.student_std + self.student_mean - self.mean) / self.std  # grey spreads over channels
        if tuple(imgs.shape[-2:]) != self.img_size:
            imgs = F.interpolate(imgs, self.img_size, mode="bicubic", align_corners=False, antialias=True)
        grid = self.grid_of(self.network, imgs)
        grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
        if tuple(grid.shape[-2:]) != tuple(grid_size):
            grid = F.interpolate(grid, grid_size, mode="bilinear", align_corners=False, antialias=True)
        return grid.flatten(2).transpose(1, 2)


def _last_block(network: Any, imgs: torch.Tensor) -> torch.Tensor:
    """The normed output of the last block, as timm's models give it: `(B, C, h, w)` without class tokens."""
    return network.forward_intermediates(imgs, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[0]


def _encoder_output(network: ConvMAEEncoder, imgs: torch.Tensor) -> torch.Tensor:
    tokens = network.forward_features(imgs)[:, network.num_prefix_tokens :]
    return tokens.transpose(1, 2).unflatten(2, network.grid_size)


def convvit_teacher(network: ConvMAEEncoder | ConvViT, normalisation: Normalisation) -> Teacher:
    """An own encoder, which gives what its decoder saw, or an own classifier, which gives the normed last block.

    Args:
        normalisation: of the student, which is that of everything trained here.
    """
    grid_of = _encoder_output if isinstance(network, ConvMAEEncoder) else _last_block
    return Teacher(network, grid_of, network.embed_dim[2], network.img_size, normalisation, normalisation)


def timm_teacher(name: str, file: str, normalisation: Normalisation, option: str, pretrained: bool = True) -> Teacher:
    """A model of timm: the normed output of its last block, images at the size and in the normalisation of its weights.

    Args:
        name: timm's, such as "vit_base_patch16_224.dino".
        file: with its weights; "" to take those that timm downloads.
        normalisation: of the student.
        option: what a user writes to name a file, with FILE in place of it; for messages.
        pretrained: False keeps random weights, for benchmarks.

    Raises:
        FileNotFoundError, UserError: there is no such model, it gives no grid of features, or its weights cannot be
            had.
    """
    cfg = _pretrained_cfg(name)
    if file:
        load_checkpoint(file)  # whether it can be read, and safely
    try:
        overlay = dict(file=file) if file else None
        network: Any = timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=overlay)
    except Exception as e:  # libraries for the hub, http and sockets raise a dozen types
        raise UserError(_no_weights(name, file, cfg, option)) from e
    if not hasattr(network, "forward_intermediates"):
        raise UserError(f"timm's {name} gives no grid of features; choose a vision transformer.")
    network.reset_classifier(0)
    return Teacher(network, _last_block, network.num_features, cfg.input_size[1:], (cfg.mean, cfg.std), normalisation)


def _pretrained_cfg(name: str) -> PretrainedCfg:
    try:
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model(name) else None
    except RuntimeError:  # no such tag
        cfg = None
    if cfg is None:
        raise UserError(
            f"timm has no model {name!r}; python -c 'import timm; print(timm.list_pretrained())' lists all."
        )
    return cfg


def _no_weights(name: str, file: str, cfg: PretrainedCfg, option: str) -> str:
    if file:
        return f"{file} does not hold the weights of timm's {name}; name the model that it holds before the @."
    if cfg.hf_hub_id:
        source = f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/{cfg.hf_hub_filename or 'model.safetensors'}"
    elif cfg.url:
        source = str(cfg.url)
    else:
        return f"No weights are published for timm's {name}; choose another model, or name a file: {option}."
    return f"The weights of {name} are not here and cannot be downloaded; get {source} and name the file: {option}."


class EmaTeacher(Teacher):
    """An exponential moving average of the student's own encoder, which begins as the student is.

    Args:
        student: on its device.
        normalisation: of the student.
    """

    def __init__(self, student: ConvMAEEncoder, normalisation: Normalisation):
        network = copy.deepcopy(student)
        for name in [*network._modules, *network._parameters]:
            if name.startswith(DECODER_PREFIXES):
                delattr(network, name)
        super().__init__(network, _encoder_output, student.embed_dim[2], student.img_size, normalisation, normalisation)

    @torch.no_grad()
    def update(self, student: ConvMAEEncoder, decay: float) -> None:
        """Keeps `decay` of each weight and takes the rest from the student."""
        own, new = self.network.state_dict(), student.state_dict()
        for name, average in own.items():
            average.lerp_(new[name], 1 - decay)


def ema_decay(progress: float, start: float, end: float) -> float:
    """The decay after a share of the run, from `start` to `end` by a half-cosine (BYOL, arXiv:2006.07733, 3.2)."""
    return end - (end - start) * (math.cos(math.pi * min(progress, 1.0)) + 1) / 2
