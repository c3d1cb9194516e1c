"""Parameters and FLOPs of a detector, by module, with fvcore's counter (a multiply-add is one FLOP)."""

from typing import Any

import torch
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

from convmae_det.backbone import ConvViT
from convmae_det.baselines import with_dense_backbone

__all__ = ["attention_flops", "flop_analysis"]


def attention_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """fvcore handle of `scaled_dot_product_attention`: the products with keys and with values.

    For queries `(..., N, d)`, keys `(..., M, d)` and values `(..., M, e)` these are `N * M * (d + e)` for each head and
    image; like fvcore elsewhere, it leaves out softmax and scaling.
    """
    *batch, queries, d = get_shape(inputs[0])
    *_, keys, e = get_shape(inputs[2])
    return torch.Size(batch).numel() * queries * keys * (d + e)


def flop_analysis(model: nn.Module, image: torch.Tensor) -> FlopCountAnalysis:
    """Counts the inference on one image.

    A ConvViT backbone is counted as published, not as we compute it: the mathematics are the same, but folded attention
    would change the count, and autograd functions of our own would be left out of it.

    Args:
        model: a detectron2 model.
        image: `(3, H, W)` in 0 to 255. Proposals and detections depend on it and on the weights: heads are counted for
            as many as there are.
    """
    net = getattr(getattr(model, "backbone", None), "net", None)
    if isinstance(net, ConvViT):
        model = with_dense_backbone(model)
    analysis = FlopCountAnalysis(model.eval(), [{"image": image}])
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention_flops)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
