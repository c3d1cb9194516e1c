"""An own or published ConvViT as it was trained, from its file alone: the network whose features a student predicts."""

import logging
from collections.abc import Mapping
from math import prod
from typing import Any

import torch.nn.functional as F

from pretrain.checkpoints.classifier_weights import load_trunk
from pretrain.checkpoints.kinds import Part
from pretrain.checkpoints.recognition import Checkpoint, recognise
from pretrain.common.errors import UserError
from pretrain.models import CLASSIFIERS, MODELS, SIZES
from pretrain.models.classifier import ConvViT
from pretrain.models.convmae_v2 import ConvMAEv2Encoder, ConvViTv2
from pretrain.models.encoder import ConvMAEEncoder

__all__ = ["load_network"]

logger = logging.getLogger(__name__)


def load_network(path: str) -> ConvMAEEncoder | ConvViT:
    """A pretraining file's encoder as its decoder saw it; of any other file with a ConvViT, the classifier without its
    head. Its size is the file's, image size included.

    Raises:
        FileNotFoundError, UserError: the file is missing or damaged, or holds no ConvViT or not all of it.
    """
    checkpoint = recognise(path)
    if checkpoint.kind.family != "ConvViT" or checkpoint.kind.is_segmentor:
        raise UserError(
            f"{path} ({checkpoint.kind.name}) is no encoder to learn from: give a ConvViT's pretraining or classifier "
            "file, or a model of timm as NAME=MODEL@FILE."
        )
    name = next(name for name, part in checkpoint.parts.items() if part is Part.POS_EMBED)
    (rows, columns), _ = checkpoint.grid(checkpoint.tensors[name])
    stride = prod(_sizes(checkpoint)["patch_size"])
    config = dict(_sizes(checkpoint), img_size=(rows * stride, columns * stride), num_heads=_num_heads(checkpoint))
    is_v2 = checkpoint.has(Part.CLS_TOKEN)
    is_pretraining = checkpoint.has(Part.STAGE_DECODE) or (is_v2 and not checkpoint.has(Part.HEAD_NORM))
    if is_pretraining and checkpoint.has(Part.NORM) and not checkpoint.kind.is_detector:
        return _encoder(checkpoint, config, is_v2)
    classifier = (ConvViTv2 if is_v2 else ConvViT)(num_classes=0, **config)
    if "norm.weight" in checkpoint.tensors and "fc_norm.weight" not in checkpoint.tensors:
        classifier.reset_classifier(0, "token")  # its norm is on tokens, as it was trained
    load_trunk(classifier, path)
    return classifier


def _sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    sizes = checkpoint.sizes
    assert sizes is not None, "every ConvViT's are known"
    return dict(
        patch_size=sizes.patch_size,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        mlp_ratio=sizes.mlp_ratios,
        in_chans=sizes.in_chans,
    )


def _num_heads(checkpoint: Checkpoint) -> int:
    """No shape tells it: that of the model that the file names, or of the one with these sizes."""
    named: Mapping[str, dict] = MODELS | CLASSIFIERS
    model = str(checkpoint.notes["args"].get("model", ""))
    if model in named:
        return named[model]["num_heads"]
    sizes = _sizes(checkpoint)
    for config in SIZES.values():
        if all(tuple(config[key]) == tuple(sizes[key]) for key in ("embed_dim", "depth")):
            return config["num_heads"]
    raise UserError(
        f"{checkpoint.source} does not say which model it holds, and none here has its sizes ({checkpoint.variant}), "
        "so its number of attention heads is not known; add args={'model': NAME} to the file."
    )


def _encoder(checkpoint: Checkpoint, config: dict[str, Any], is_v2: bool) -> ConvMAEEncoder:
    encoder = (ConvMAEv2Encoder if is_v2 else ConvMAEEncoder)(masking="random", **config)
    own = encoder.state_dict()
    state = {name: tensor for name, tensor in checkpoint.tensors.items() if name in own}
    # A file of ConvMAE-v2 may have no position for the class token, which is zeros.
    added = own["pos_embed"].shape[1] - state["pos_embed"].shape[1]
    state["pos_embed"] = F.pad(state["pos_embed"], (0, 0, added, 0))
    missing = encoder.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise UserError(f"{checkpoint.source} has no {', '.join(missing)}, which its encoder needs.")
    logger.info("%s: %s, %d tensors of its encoder loaded.", checkpoint.source, checkpoint.kind.name, len(state))
    return encoder
