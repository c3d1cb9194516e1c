"""Linear layers that keep less for the backward pass.

`Linear(LayerNorm(x))` and `Linear(GELU(x))` normally keep both the inner layer's input and its output. The output is
cheap to compute again, so the functions here keep the input alone: two of the larger tensors of every block less, with
the same arithmetic. On a CPU the MLP goes through the tokens in chunks, so that what is not kept stays in the cache.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

__all__ = ["norm_linear", "norm_mlp"]

# Elements of the MLP's hidden layer in a chunk
CHUNK = 2**22


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype autocast would run a linear layer in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    dtype = x.dtype
    return F.linear(x, weight.to(dtype), None if bias is None else bias.to(dtype))


def _linear_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias_dtype: torch.dtype | None,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of `_linear` w.r.t. x (M, C_in), weight (C_out, C_in) and bias, for grad (M, C_out)."""
    grad_x = grad @ weight.to(grad.dtype)
    grad_weight = (grad.t() @ x).to(weight.dtype) if needs_weight else None
    grad_bias = grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32)).to(bias_dtype) if needs_bias else None
    return grad_x, grad_weight, grad_bias


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
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
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
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


class _NormMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        eps: float,
        weight1: torch.Tensor,
        bias1: torch.Tensor,
        weight2: torch.Tensor,
        bias2: torch.Tensor,
    ) -> torch.Tensor:
        dtype = _compute_dtype(x)
        tokens = x.reshape(-1, x.shape[-1])
        hidden = tokens.new_empty(len(tokens), len(weight1), dtype=dtype)
        out = tokens.new_empty(len(tokens), len(weight2), dtype=dtype)
        with torch.autocast(x.device.type, enabled=False):
            shape, gamma, beta = norm_weight.shape, norm_weight.to(x.dtype), norm_bias.to(x.dtype)
            w1, b1, w2, b2 = (t.to(dtype) for t in (weight1, bias1, weight2, bias2))
            for rows in _chunks(hidden):
                y = F.layer_norm(tokens[rows], shape, gamma, beta, eps)
                torch.addmm(b1, y.to(dtype), w1.t(), out=hidden[rows])
                torch.addmm(b2, F.gelu(hidden[rows]), w2.t(), out=out[rows])
        ctx.save_for_backward(x, hidden, norm_weight, norm_bias, weight1, weight2)
        ctx.eps, ctx.dtype, ctx.bias_dtypes = eps, dtype, (bias1.dtype, bias2.dtype)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, hidden, norm_weight, norm_bias, weight1, weight2 = ctx.saved_tensors
        shape, gamma, beta = norm_weight.shape, norm_weight.to(x.dtype), norm_bias.to(x.dtype)
        w1, w2 = weight1.to(ctx.dtype), weight2.to(ctx.dtype)
        tokens, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        grad_tokens = torch.empty_like(tokens)
        grad_gamma, grad_beta = torch.zeros_like(gamma), torch.zeros_like(beta)
        grad_w1, grad_w2 = torch.empty_like(w1), torch.empty_like(w2)
        grad_b1, grad_b2 = (t.new_zeros(len(t), dtype=torch.promote_types(t.dtype, torch.float32)) for t in (w1, w2))
        with torch.autocast(x.device.type, enabled=False):
            for rows in _chunks(hidden):
                h, g = hidden[rows], grad[rows]
                keep = float(rows.start > 0)  # the first chunk overwrites what the others add to
                if ctx.needs_input_grad[6]:
                    grad_w2.addmm_(g.t(), F.gelu(h), beta=keep)
                grad_b2 += g.sum(0, dtype=grad_b2.dtype)
                grad_h = torch.ops.aten.gelu_backward(g @ w2, h)
                y, mean, rstd = torch.native_layer_norm(tokens[rows], shape, gamma, beta, ctx.eps)
                if ctx.needs_input_grad[4]:
                    grad_w1.addmm_(grad_h.t(), y.to(ctx.dtype), beta=keep)
                grad_b1 += grad_h.sum(0, dtype=grad_b1.dtype)
                grad_y = (grad_h @ w1).to(x.dtype)
                grad_tokens[rows], *affine = torch.ops.aten.native_layer_norm_backward(
                    grad_y, tokens[rows], shape, mean, rstd, gamma, beta, [True, True, True]
                )
                grad_gamma += affine[0]
                grad_beta += affine[1]
        return (
            grad_tokens.view(x.shape),
            grad_gamma.to(norm_weight.dtype),
            grad_beta.to(norm_bias.dtype),
            None,
            grad_w1.to(weight1.dtype),
            grad_b1.to(ctx.bias_dtypes[0]),
            grad_w2.to(weight2.dtype),
            grad_b2.to(ctx.bias_dtypes[1]),
        )


def _chunks(hidden: torch.Tensor) -> Iterator[slice]:
    """Rows of a matrix that are computed together: on a CPU as many as the cache holds, else all of them.

    Sums over chunks would lose digits in low precision, which is computed in one piece too.
    """
    rows = len(hidden)
    if hidden.device.type == "cpu" and hidden.dtype.itemsize >= 4:
        rows = max(1, CHUNK // hidden.shape[1])
    return (slice(i, i + rows) for i in range(0, len(hidden), rows))


def _saves_memory(x: torch.Tensor) -> bool:
    """Whether the hand-written backward pays off: with gradients, and outside a compiler, which recomputes itself."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and x.numel() > 0


def _is_plain_layer_norm(norm: nn.Module, x: torch.Tensor) -> TypeGuard[nn.LayerNorm]:
    return type(norm) is nn.LayerNorm and norm.bias is not None and norm.normalized_shape == x.shape[-1:]


def norm_linear(x: torch.Tensor, norm: nn.Module, linear: nn.Linear | nn.Conv2d) -> torch.Tensor:
    """`linear(norm(x))` for x (..., C), without keeping `norm(x)` for the backward pass.

    Args:
        x: tokens, channels last.
        norm: any normalisation over the last dimension; only an affine `nn.LayerNorm` is recomputed, others run
            as they are.
        linear: `nn.Linear` or :class:`pretrain.models.layers.PointwiseConv`.
    """
    if not (_is_plain_layer_norm(norm, x) and _saves_memory(x)):
        return linear(norm(x))
    return _NormLinear.apply(x, norm.weight, norm.bias, norm.eps, linear.weight.flatten(1), linear.bias)


def norm_mlp(
    x: torch.Tensor, norm: nn.Module, fc1: nn.Linear | nn.Conv2d, act: nn.Module, fc2: nn.Linear | nn.Conv2d
) -> torch.Tensor:
    """`fc2(act(fc1(norm(x))))` for x (..., C), keeping x and `fc1`'s output alone.

    Args:
        x: tokens, channels last.
        norm, act: affine `nn.LayerNorm` and exact `nn.GELU`; others run as they are, and what they need is kept.
        fc1, fc2: `nn.Linear` or :class:`pretrain.models.layers.PointwiseConv`, with biases.
    """
    recompute = type(act) is nn.GELU and act.approximate == "none" and fc1.bias is not None and fc2.bias is not None
    if not (recompute and _is_plain_layer_norm(norm, x) and _saves_memory(x)):
        return fc2(act(norm_linear(x, norm, fc1)))
    return _NormMlp.apply(
        x, norm.weight, norm.bias, norm.eps, fc1.weight.flatten(1), fc1.bias, fc2.weight.flatten(1), fc2.bias
    )
