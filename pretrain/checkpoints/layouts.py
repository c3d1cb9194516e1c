"""Where each kind of detector or segmentation model keeps the tensors of a pretraining file, by parameter name."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pretrain.checkpoints.kinds import NET_PREFIX, Part

__all__ = ["SEGMENTATION", "VITDET", "DetectorLayout", "find_layout", "layout_of"]

_BOTTOM_UP = "backbone.bottom_up."
_ENCODER, _DECODER = f"{_BOTTOM_UP}encoder.", f"{_BOTTOM_UP}decoder."
_HEADS = {r"(proposal_generator|roi_heads)\..+": "the heads are trained from scratch"}
_FPN = {r"backbone\.(?!bottom_up\.).+": "the feature pyramid is trained from scratch", **_HEADS}
_TABLES = {
    r"backbone\.bottom_up\.(windowed|global)_rel_pos_bias\..+": "relative positions are learned in detection only"
}
_OWN_POSITIONS = "the detector begins with sines and cosines of its own, in another order than MAE's"


@dataclass(frozen=True)
class DetectorLayout:
    """
    Attributes:
        name: what it is the layout of.
        marker: what the name of some parameter begins with in these models and no others.
        prefixes: for each part that is converted, the prefix of its names in the detector.
        missing: regular expressions of the detector's names that pretraining has nothing for, each with the reason.
        dropped: regular expressions of names that are left out although their part is converted.
    """

    name: str
    marker: str
    prefixes: Mapping[Part, str]
    missing: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)

    def reason_dropped(self, name: str) -> str | None:
        return _first_match(self.dropped, name)

    def reason_missing(self, name: str) -> str | None:
        return _first_match(self.missing, name)


VITDET = DetectorLayout(
    "ViTDet",
    marker=NET_PREFIX,
    prefixes={Part.TRUNK: NET_PREFIX, Part.POS_EMBED: NET_PREFIX},
    missing={
        r"backbone\.net\.blocks3?\.\d+\.attn\.rel_pos_[hw]": "relative positions are learned in detection only",
        r"backbone\.(?!net\.).+": "the feature pyramid is trained from scratch",
        **_HEADS,
    },
)
_FUSED = DetectorLayout(
    "ViTDet on the sum of stages",
    marker=f"{NET_PREFIX}stage1_output_decode.",
    prefixes=dict.fromkeys((Part.TRUNK, Part.POS_EMBED, Part.STAGE_DECODE, Part.NORM), NET_PREFIX),
    missing={
        r"backbone\.net\.(stage[12]_output_decode|norm)\..+": "the file does not join the stages; trained from scratch",
        **VITDET.missing,
    },
)
SEGMENTATION = DetectorLayout(
    "UperNet",
    marker="decode_head.",
    prefixes={Part.TRUNK: "backbone.", Part.POS_EMBED: "backbone."},
    missing={
        r"backbone\.blocks3\.\d+\.attn\.relative_position_.+": "relative positions are learned in segmentation only",
        r"backbone\.blocks3\.\d+\.gamma_[12]": "LayerScale is learned in segmentation only",
        r"backbone\.fpn\..+": "the coarsest feature is trained from scratch",
        r"(decode_head|auxiliary_head)\..+": "the heads are trained from scratch",
    },
)
_LAYOUTS = (
    _FUSED,  # before the layout whose names begin alike
    VITDET,
    SEGMENTATION,
    DetectorLayout(
        "ConvViT under a feature pyramid network",
        marker=f"{_BOTTOM_UP}blocks3.",
        prefixes={Part.TRUNK: _BOTTOM_UP, Part.POS_EMBED: _BOTTOM_UP},
        missing=_FPN | _TABLES,
    ),
    DetectorLayout(
        "Benchmarking ViT",
        marker=f"{_BOTTOM_UP}blocks.",
        prefixes={Part.TRUNK: _BOTTOM_UP, Part.POS_EMBED: _BOTTOM_UP},
        missing={
            **_FPN,
            **_TABLES,
            r"backbone\.bottom_up\.ms_adaptor\..+": "the pyramid's input is trained from scratch",
            r"backbone\.bottom_up\.pos_embed": _OWN_POSITIONS,
        },
        dropped={"pos_embed": _OWN_POSITIONS},
    ),
    DetectorLayout(
        "MIMDet",
        marker=_ENCODER,
        prefixes={Part.TRUNK: _ENCODER, Part.POS_EMBED: _ENCODER, Part.NORM: _ENCODER, Part.DECODER: _DECODER},
        missing={
            **_FPN,
            r"backbone\.bottom_up\.encoder\.patch_embed\..+": "the convolutional stem is trained from scratch",
            r"backbone\.bottom_up\.decoder\.conv_feat_proj\..+": "takes the mask token's place, trained from scratch",
        },
        dropped={
            r"patch_embed\..+": "the detector has a convolutional stem instead",
            "mask_token": "the detector has the stem's features instead",
            r"decoder_pred\..+": "reconstructs pixels, in pretraining only",
        },
    ),
)


def layout_of(names: Iterable[str] | None) -> DetectorLayout:
    """The layout of the detector with these parameter names; ViTDet's if none is given or none fits."""
    return find_layout(names or ()) or VITDET


def find_layout(names: Iterable[str]) -> DetectorLayout | None:
    """The layout of the model with these parameter names; None for a model that pretraining has nothing for."""
    names = list(names)
    return next((x for x in _LAYOUTS if any(n.startswith(x.marker) for n in names)), None)


def _first_match(reasons: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if re.fullmatch(pattern, name)), None)
