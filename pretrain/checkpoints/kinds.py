"""The kinds of checkpoints: for each a table from parts (trunk, decoder, head …) to the names of their tensors.

A file is of a kind when every one of its tensors falls into one of the kind's parts and no required part is absent; the
kinds exclude each other. :mod:`pretrain.checkpoints.recognition` looks files up in these tables.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ["KINDS", "NET_PREFIX", "VIDEO", "Kind", "Part", "Target"]

NET_PREFIX = "backbone.net."
VIDEO = "VideoConvViT"
"""The family of video models."""


class Target(Enum):
    """What to convert to."""

    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    PRETRAIN = "pretrain"
    CLASSIFIER = "classifier"


class Part(Enum):
    """What a tensor belongs to; the value is how reports call it."""

    TRUNK = "trunk"
    POS_EMBED = "pos_embed"
    CLS_TOKEN = "cls_token"
    NORM = "norm"
    STAGE_DECODE = "stage*_output_decode"
    DECODER = "decoder_* or mask_token"
    HEAD = "head"
    HEAD_NORM = "fc_norm or norm"
    REL_POS = "relative positions"
    PYRAMID = "feature pyramid"
    DETECTOR = "detection heads"
    LAYER_SCALE = "LayerScale"
    SEGMENTOR = "segmentation heads"


@dataclass(frozen=True, eq=False)
class Kind:
    """
    Attributes:
        name: what a report calls it.
        family: "ConvViT", "VideoConvViT" (the same names, but `patch_embed1` is 5-D), "ViT", or "other" for detectors
            that are recognised but not converted.
        prefix: what the names of trunk and positions begin with.
        parts: a regular expression for each part; of several that match a name the first decides.
        required: the parts that tell this kind from the others.
    """

    name: str
    family: str
    prefix: str
    parts: Mapping[Part, str]
    required: frozenset[Part]

    @property
    def is_detector(self) -> bool:
        return Part.DETECTOR in self.parts

    @property
    def is_segmentor(self) -> bool:
        return Part.SEGMENTOR in self.parts

    @property
    def is_video(self) -> bool:
        return self.family == VIDEO

    def part_of(self, name: str) -> Part | None:
        return next((part for part, pattern in self.parts.items() if re.fullmatch(pattern, name)), None)

    def obstacles(self, names: Collection[str]) -> tuple[list[str], list[Part]]:
        """What speaks against this kind for a file with these names: names without a part, parts without a name."""
        parts = {name: self.part_of(name) for name in names}
        unknown = [name for name, part in parts.items() if part is None]
        return unknown, [part for part in self.parts if part in self.required and part not in parts.values()]


_TRUNKS = {
    "ConvViT": r"patch_embed[1-4]\..+|blocks[123]\.\d+\..+",
    "ViT": r"patch_embed\.proj\..+|blocks\.\d+\..+",
}
_TRUNKS[VIDEO] = _TRUNKS["ConvViT"]
_CLS_TOKEN = {Part.CLS_TOKEN: "cls_token"}
_NORM = {Part.NORM: r"norm\.(weight|bias)"}
_DECODER = {
    Part.DECODER: r"mask_token|decoder_(pos_embed|(embed|blocks|norm|pred|targets)\..+)|mimic_head\.(weight|bias)"
}
_STAGE_DECODE = {Part.STAGE_DECODE: r"stage[12]_output_decode\.(weight|bias)"}
_HEAD = {Part.HEAD: r"head\..+"}
_HEAD_NORM = {Part.HEAD_NORM: r"(fc_norm|norm)\.(weight|bias)"}
_AROUND_NET = {
    Part.PYRAMID: r"backbone\.(?!net\.).+",
    Part.DETECTOR: r"(proposal_generator|roi_heads)\..+|pixel_mean|pixel_std",
}


def _bare(name: str, family: str, required: Mapping[Part, str], optional: Mapping[Part, str]) -> Kind:
    """A kind whose trunk has no prefix."""
    required = {Part.TRUNK: _TRUNKS[family], Part.POS_EMBED: "pos_embed", **required}
    return Kind(name, family, "", {**required, **optional}, frozenset(required))


def _detector(family: str) -> Kind:
    """A detector with the backbone `SimpleFeaturePyramid(net=...)`; a converted file holds `net` alone."""
    parts = {
        Part.REL_POS: r"backbone\.net\.blocks3?\.\d+\.attn\.rel_pos_[hw]",
        Part.TRUNK: rf"backbone\.net\.({_TRUNKS[family]})",
        Part.POS_EMBED: r"backbone\.net\.pos_embed",
        **_AROUND_NET,
    }
    if family == "ConvViT":  # where the detector joins the stages as pretraining does
        parts |= {part: rf"backbone\.net\.{pattern}" for part, pattern in (_STAGE_DECODE | _NORM).items()}
    return Kind(f"detectron2 checkpoint, {family} backbone", family, NET_PREFIX, parts, frozenset({Part.TRUNK}))


_SEGMENTOR = Kind(
    "segmentation checkpoint, ConvViT backbone",
    "ConvViT",
    "backbone.",
    {
        Part.REL_POS: r"backbone\.blocks3\.\d+\.attn\.relative_position_(bias_table|index)",
        Part.LAYER_SCALE: r"backbone\.blocks3\.\d+\.gamma_[12]",
        Part.TRUNK: rf"backbone\.({_TRUNKS['ConvViT']})",
        Part.POS_EMBED: r"backbone\.pos_embed",
        Part.PYRAMID: r"backbone\.fpn\..+",
        Part.SEGMENTOR: r"(decode_head|auxiliary_head)\..+",
    },
    frozenset({Part.TRUNK, Part.POS_EMBED}),
)
"""As mmsegmentation and :mod:`convmae_seg` name it; a converted file holds the trunk alone."""


KINDS: tuple[Kind, ...] = (
    _bare("ConvMAE or FastConvMAE pretraining", "ConvViT", _STAGE_DECODE, _NORM | _DECODER),
    _bare("ConvMAE-v2 pretraining", "ConvViT", _CLS_TOKEN, _NORM | _DECODER),
    _bare("ConvViT classifier", "ConvViT", _HEAD, _HEAD_NORM | _CLS_TOKEN),
    _bare(
        "ConvViT classifier without its head",
        "ConvViT",
        {Part.HEAD_NORM: r"fc_norm\.(weight|bias)"},
        _CLS_TOKEN | _NORM,
    ),
    _bare("bare ConvViT trunk", "ConvViT", {}, _NORM),
    _bare("VideoConvMAE pretraining", VIDEO, _NORM, _STAGE_DECODE | _DECODER),
    _bare("VideoConvViT classifier", VIDEO, _HEAD, _HEAD_NORM),
    _bare("VideoConvViT classifier without its head", VIDEO, {Part.HEAD_NORM: r"fc_norm\.(weight|bias)"}, {}),
    _bare("bare VideoConvViT trunk", VIDEO, {}, {}),
    _bare("MAE ViT pretraining", "ViT", _CLS_TOKEN, _NORM | _DECODER),
    _bare("bare ViT trunk", "ViT", {}, _NORM),
    _detector("ConvViT"),
    _detector("ViT"),
    _SEGMENTOR,
    Kind("detectron2 checkpoint, other backbone", "other", "", _AROUND_NET, frozenset(_AROUND_NET)),
)
