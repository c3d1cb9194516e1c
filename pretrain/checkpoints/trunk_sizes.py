"""Sizes of a trunk, read off the names and shapes of its tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nextafter
from typing import cast

import torch
from torch import nn

from pretrain.common.errors import UserError
from pretrain.models import SIZES
from pretrain.models.layers import Attention, Block
from pretrain.models.trunk import ConvViTTrunk

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
    """Sizes of each stage: ConvViT has three, ViT one. `mlp_ratio` is exact, so that widths multiply without error."""

    family: str
    patch_size: tuple[int, ...]
    embed_dim: tuple[int, ...]
    depth: tuple[int, ...]
    mlp_ratio: tuple[Fraction, ...]
    in_chans: int
    qkv_bias: bool

    @classmethod
    def read(cls, family: str, shapes: Mapping[str, tuple[int, ...]]) -> "TrunkSizes":
        """From the shapes of a trunk's tensors by bare name.

        Raises:
            UserError: a tensor that tells a size is missing or has the wrong number of dimensions.
        """
        convvit = family == "ConvViT"
        embeds = ["patch_embed1", "patch_embed2", "patch_embed3"] if convvit else ["patch_embed"]
        stages = ["blocks1", "blocks2", "blocks3"] if convvit else ["blocks"]
        telling = {f"{embed}.proj.weight": 4 for embed in embeds}
        telling |= {f"{stage}.0.mlp.fc1.weight": 2 if stage in ("blocks", "blocks3") else 4 for stage in stages}
        for name, ndim in telling.items():
            if len(shapes.get(name, ())) != ndim or 0 in shapes[name]:
                raise UserError(f"{name} is {shapes.get(name, 'missing')} where {ndim} dimensions were expected")
        projections = [shapes[f"{embed}.proj.weight"] for embed in embeds]
        hidden = [shapes[f"{stage}.0.mlp.fc1.weight"] for stage in stages]
        blocks = [_block_indices(stage, shapes) for stage in stages]
        return cls(
            family=family,
            patch_size=tuple(shape[2] for shape in projections),
            embed_dim=tuple(shape[0] for shape in projections),
            depth=tuple(len(indices) for indices in blocks),
            mlp_ratio=tuple(Fraction(shape[0], shape[1]) for shape in hidden),
            in_chans=projections[0][1],
            qkv_bias=f"{stages[-1]}.0.attn.qkv.bias" in shapes,
        )

    def __str__(self) -> str:
        fields = (
            f"{f} {', '.join(map(str, getattr(self, f)))}" for f in ("embed_dim", "depth", "patch_size", "mlp_ratio")
        )
        return f"{self.family}-{_VARIANTS.get((self.embed_dim, self.depth), 'other')} ({'; '.join(fields)})"

    @property
    def mlp_ratios(self) -> list[float]:
        """`mlp_ratio` as floats whose product with the width, rounded down, is the hidden width."""
        return [_rounded_up(ratio, dim) for ratio, dim in zip(self.mlp_ratio, self.embed_dim, strict=True)]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the trunk of these sizes, without positions."""
        with torch.device("meta"):  # the number of heads shows in no shape
            trunk = _convvit(self) if self.family == "ConvViT" else _vit(self)
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
    return ConvViTTrunk(
        patch_size=sizes.patch_size,
        in_chans=sizes.in_chans,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        num_heads=1,
        mlp_ratio=cast(tuple[float, ...], sizes.mlp_ratio),  # exact fractions multiply like floats
        qkv_bias=sizes.qkv_bias,
    )


def _vit(sizes: TrunkSizes) -> nn.Module:
    (dim,), (patch_size,), (depth,), (mlp_ratio,) = sizes.embed_dim, sizes.patch_size, sizes.depth, sizes.mlp_ratio
    vit = nn.Module()
    vit.patch_embed = nn.Module()
    vit.patch_embed.proj = nn.Conv2d(sizes.in_chans, dim, patch_size, patch_size)
    vit.blocks = nn.ModuleList(
        Block(dim, Attention(dim, 1, sizes.qkv_bias), cast(float, mlp_ratio)) for _ in range(depth)
    )
    return vit
