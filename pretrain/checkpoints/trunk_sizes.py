"""Sizes of a trunk, read off the names and shapes of its tensors."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf, nextafter
from typing import Any, cast

import torch
from torch import nn

from pretrain.checkpoints.kinds import VIDEO
from pretrain.common.errors import UserError
from pretrain.models import SIZES
from pretrain.models.layers import Attention, Block
from pretrain.models.trunk import ConvViTTrunk
from pretrain.models.video.trunk import VideoTrunk

__all__ = ["TrunkSizes", "trunk_problems"]


def _letter(name: str) -> str:
    """What papers call a size: S, B, L or H."""
    size = name.partition("_")[0]
    return size if size == "tiny" else size[0].upper()


BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm has beside the weights and biases that LayerNorm has, too."""

_VARIANTS = {
    **{(config["embed_dim"], config["depth"]): _letter(name) for name, config in SIZES.items()},
    # ViT: arXiv:2010.11929, table 1, and DeiT's S.
    ((384,), (12,)): "S",
    ((768,), (12,)): "B",
    ((1024,), (24,)): "L",
    ((1280,), (32,)): "H",
}


@dataclass(frozen=True)
class TrunkSizes:
    """Sizes of each stage: ConvViT has three, ViT one. `mlp_ratio` is exact, so that widths multiply without error.

    For video there are also the frames of a time slot, and the slots that depthwise convolutions span.
    """

    family: str
    patch_size: tuple[int, ...]
    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]
    mlp_ratio: tuple[Fraction, ...]
    in_chans: int
    qkv_bias: bool
    tubelet_size: int = 1
    conv_frames: int = 1

    @classmethod
    def read(cls, family: str, shapes: Mapping[str, tuple[int, ...]]) -> "TrunkSizes":
        """From the shapes of a trunk's tensors by bare name.

        Raises:
            UserError: a tensor that tells a size is missing or has the wrong number of dimensions.
        """
        convvit, video = family in ("ConvViT", VIDEO), family == VIDEO
        embeds = ["patch_embed1", "patch_embed2", "patch_embed3"] if convvit else ["patch_embed"]
        stages = ["blocks1", "blocks2", "blocks3"] if convvit else ["blocks"]
        telling = {f"{embed}.proj.weight": 4 for embed in embeds}
        telling |= {f"{stage}.0.mlp.fc1.weight": 2 if stage in ("blocks", "blocks3") else 4 for stage in stages}
        if video:
            telling["patch_embed1.proj.weight"] = 5
        for name, ndim in telling.items():
            if len(shapes.get(name, ())) != ndim or 0 in shapes[name]:
                raise UserError(f"{name} is {shapes.get(name, 'missing')} where {ndim} dimensions were expected")
        projections = [shapes[f"{embed}.proj.weight"] for embed in embeds]
        hidden = [shapes[f"{stage}.0.mlp.fc1.weight"] for stage in stages]
        blocks = [_block_indices(stage, shapes) for stage in stages]
        depthwise = shapes.get("blocks1.0.attn.weight", ())
        return cls(
            family=family,
            patch_size=tuple(shape[-1] for shape in projections),
            embed_dim=tuple(shape[0] for shape in projections),
            depth=tuple(len(indices) for indices in blocks),
            mlp_ratio=tuple(Fraction(shape[0], shape[1]) for shape in hidden),
            in_chans=projections[0][1],
            qkv_bias=f"{stages[-1]}.0.attn.qkv.bias" in shapes,
            tubelet_size=projections[0][2] if video else 1,
            conv_frames=depthwise[2] if video and len(depthwise) == 5 else 1,
        )

    def inflated(self, tubelet_size: int, conv_frames: int) -> "TrunkSizes":
        """Sizes of the video model that an image trunk of these sizes is inflated to."""
        return replace(self, family=VIDEO, tubelet_size=tubelet_size, conv_frames=conv_frames)

    def __str__(self) -> str:
        fields = (
            f"{f} {', '.join(map(str, getattr(self, f)))}" for f in ("embed_dim", "depth", "patch_size", "mlp_ratio")
        )
        more = f"; tubelet_size {self.tubelet_size}; kernels {self.conv_frames}x5x5" if self.family == VIDEO else ""
        return f"{self.family}-{_VARIANTS.get((self.embed_dim, self.depth), 'other')} ({'; '.join(fields)}{more})"

    @property
    def mlp_ratios(self) -> list[float]:
        """`mlp_ratio` as floats whose product with the width, rounded down, is the hidden width."""
        return [_rounded_up(ratio, dim) for ratio, dim in zip(self.mlp_ratio, self.embed_dim, strict=True)]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the trunk of these sizes, without positions."""
        with torch.device("meta"):  # the number of heads shows in no shape
            trunk = _vit(self) if self.family == "ViT" else _convvit(self)
        return {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}


def _rounded_up(ratio: Fraction, dim: int) -> float:
    nearest = float(ratio)
    return nearest if int(dim * nearest) == ratio * dim else nextafter(nearest, inf)


def _block_indices(stage: str, names: Iterable[str]) -> set[int]:
    """Raises UserError unless the blocks of a stage are numbered from 0 on, as sizes follow from how many there are."""
    indices = {int(name.split(".")[1]) for name in names if name.startswith(f"{stage}.")}
    if max(indices) >= len(indices):
        raise UserError(f"{stage} has {len(indices)} blocks, but one of them is {stage}.{max(indices)}")
    return indices


def trunk_problems(sizes: TrunkSizes, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How a file's trunk (bare names, with `pos_embed` if it has one) differs from the trunk of its sizes."""
    expected = sizes.shapes()
    actual = {name: shape for name, shape in shapes.items() if name != "pos_embed"}
    problems = [f"{name} is missing" for name in expected if name not in actual]
    problems += [
        f"{name} has no place in it"
        for name in actual
        if name not in expected and name.rpartition(".")[2] not in BATCH_STATISTICS
    ]
    problems += [
        f"{name} is {actual[name]} instead of {shape}"
        for name, shape in expected.items()
        if actual.get(name, shape) != shape
    ]
    positions = shapes.get("pos_embed")
    if positions and (len(positions) != 3 or (positions[0], positions[2]) != (1, sizes.embed_dim[-1])):
        problems.append(f"pos_embed is {positions} instead of (1, positions, {sizes.embed_dim[-1]})")
    return problems


def _convvit(sizes: TrunkSizes) -> nn.Module:
    options: dict[str, Any] = dict(
        patch_size=sizes.patch_size,
        in_chans=sizes.in_chans,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        num_heads=1,
        mlp_ratio=sizes.mlp_ratio,  # exact fractions multiply like floats
        qkv_bias=sizes.qkv_bias,
    )
    if sizes.family != VIDEO:
        return ConvViTTrunk(**options)
    tubelet, stride = sizes.tubelet_size, math.prod(sizes.patch_size)
    return VideoTrunk(stride, tubelet, tubelet_size=tubelet, conv_frames=sizes.conv_frames, **options)


def _vit(sizes: TrunkSizes) -> nn.Module:
    (dim,), (patch_size,), (depth,), (mlp_ratio,) = sizes.embed_dim, sizes.patch_size, sizes.depth, sizes.mlp_ratio
    vit = nn.Module()
    vit.patch_embed = nn.Module()
    vit.patch_embed.proj = nn.Conv2d(sizes.in_chans, dim, patch_size, patch_size)
    vit.blocks = nn.ModuleList(
        Block(dim, Attention(dim, 1, sizes.qkv_bias), cast(float, mlp_ratio)) for _ in range(depth)
    )
    return vit
