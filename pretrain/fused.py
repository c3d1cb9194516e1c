"""Linear layers that keep less for the backward pass.

`Linear(LayerNorm(x))` and `Linear(GELU(x))` normally keep both the inner layer's input and its output. The output is
cheap to compute again, so the functions here keep the input alone: two of the larger tensors of every block less, with
the same arithmetic in the same order.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

__all__ = ["gelu_linear", "norm_linear"]


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype autocast would run a linear layer in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    dtype = x.dtype
    return F.linear(x, weight.to(dtype), None if bias is None else bias.to(dtype))


def _linear_backward(grad, x, weight, bias_dtype, needs_weight, needs_bias):
    """Gradients of `_linear` w.r.t. x (M, C_in), weight (C_out, C_in) and bias, for grad (M, C_out)."""
    grad_x = grad @ weight.to(grad.dtype)
    grad_weight = (grad.t() @ x).to(weight.dtype) if needs_weight else None
    grad_bias = grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32)).to(bias_dtype) if needs_bias else None
    return grad_x, grad_weight, grad_bias


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, norm_weight, norm_bias, eps, weight, bias):
        dtype = _compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            y, mean, rstd = torch.native_layer_norm(
                x, norm_weight.shape, norm_weight.to(x.dtype), norm_bias.to(x.dtype), eps
            )
            out = _linear(y.to(dtype), weight, bias)
        ctx.save_for_backward(x, mean, rstd, norm_weight, norm_bias, weight)
        ctx.dtype, ctx.eps = dtype, eps
        ctx.bias_dtype = None if bias is None else bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, mean, rstd, norm_weight, norm_bias, weight = ctx.saved_tensors
        shape, (gamma, beta) = norm_weight.shape, (norm_weight.to(x.dtype), norm_bias.to(x.dtype))
        with torch.autocast(x.device.type, enabled=False):
            grad = grad.reshape(-1, grad.shape[-1])
            y = torch.native_layer_norm(x, shape, gamma, beta, ctx.eps)[0].to(ctx.dtype).flatten(0, -2)
            grad_y, grad_weight, grad_bias = _linear_backward(
                grad, y, weight, ctx.bias_dtype, ctx.needs_input_grad[4], ctx.needs_input_grad[5]
            )
            grad_x, grad_gamma, grad_beta = torch.ops.aten.native_layer_norm_backward(
                grad_y.view(x.shape).to(x.dtype),
                x,
                shape,
                mean,
                rstd,
                gamma,
                beta,
                list(ctx.needs_input_grad[:3]),
            )
        return (
            grad_x,
            None if grad_gamma is None else grad_gamma.to(norm_weight.dtype),
            None if grad_beta is None else grad_beta.to(norm_bias.dtype),
            None,
            grad_weight,
            grad_bias,
        )


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        dtype = _compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            out = _linear(F.gelu(x).to(dtype), weight, bias)
        ctx.save_for_backward(x, weight)
        ctx.dtype = dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grad = grad.reshape(-1, grad.shape[-1])
            y = F.gelu(x).to(ctx.dtype).flatten(0, -2)
            grad_y, grad_weight, grad_bias = _linear_backward(
                grad, y, weight, ctx.bias_dtype, ctx.needs_input_grad[1], ctx.needs_input_grad[2]
            )
            grad_x = torch.ops.aten.gelu_backward(grad_y.view(x.shape).to(x.dtype), x)
        return grad_x, grad_weight, grad_bias


def _saves_memory(x: torch.Tensor) -> bool:
    """Whether the hand-written backward pays: not without gradients, nor in a compiler, which recomputes by itself."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and x.numel() > 0


def norm_linear(x: torch.Tensor, norm: nn.Module, linear: nn.Module) -> torch.Tensor:
    """`linear(norm(x))` for x (..., C), without keeping `norm(x)` for the backward pass.

    Args:
        x: tokens, channels last.
        norm: any normalisation over the last dimension; only an affine `nn.LayerNorm` is recomputed, others run
            as they are.
        linear: `nn.Linear` or :class:`pretrain.layers.PointwiseConv`.
    """
    recompute = type(norm) is nn.LayerNorm and norm.bias is not None and norm.normalized_shape == x.shape[-1:]
    if not (recompute and _saves_memory(x)):
        return linear(norm(x))
    return _NormLinear.apply(x, norm.weight, norm.bias, norm.eps, linear.weight.flatten(1), linear.bias)


def gelu_linear(x: torch.Tensor, act: nn.Module, linear: nn.Module) -> torch.Tensor:
    """`linear(act(x))` for x (..., C), without keeping `act(x)`; only the exact `nn.GELU` is recomputed."""
    recompute = type(act) is nn.GELU and act.approximate == "none"
    if not (recompute and _saves_memory(x)):
        return linear(act(x))
    return _GeluLinear.apply(x, linear.weight.flatten(1), linear.bias)
