"""The depthwise convolution of stages 1 and 2 on visible tokens alone, exactly.

Only this convolution looks across patch borders, and it sees zeros where a patch is masked (SparK, arXiv:2301.03580,
makes the same observation). So a visible patch needs no more than its own window: the patch and a rim of
`kernel_size // 2` tokens around it, fetched from the list of visible tokens, zero where there is none. A convolution
without padding over these windows gives the patch's tokens and no others. Compared with scattering the visible tokens
to the whole grid, convolving that and fetching them back, it computes a quarter of the outputs at a mask ratio of 0.75,
and complementary masks (FastConvMAE) need no grid for each of the four groups.

Nothing is multiplied by a mask: what a masked position holds, even NaN, is never read.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pretrain.models.layers import DepthwiseConv

__all__ = ["VisibleConv"]


class VisibleConv:
    """Applies depthwise convolutions to visible tokens: the `apply_conv` of :class:`pretrain.models.layers.ConvBlock`.

    Args:
        ids_keep: `(M, K)` indices of the visible patches, in a grid of `grid_size` patches.
        grid_size: rows and columns of the grid of patches.
        side: tokens along one side of a patch.
        kernel_size: of the convolutions, odd.
    """

    def __init__(self, ids_keep: torch.Tensor, grid_size: tuple[int, int], side: int, kernel_size: int = 5):
        self.index = _window_index(ids_keep, grid_size, side, kernel_size // 2)

    def __call__(self, conv: DepthwiseConv, x: torch.Tensor) -> torch.Tensor:
        """Tokens x `(M, K, side * side, C)`, rows first within each patch, to the same shape."""
        assert conv.bias is not None
        return self.convolve(x, conv.weight, conv.bias)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Convolves with a weight `(C, 1, kernel_size, kernel_size)`."""
        tokens = x.flatten(0, 2)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            out = _WindowConv.apply(tokens, weight, bias, self.index)
        else:
            out = _convolve(_windows(tokens, self.index), weight, bias)
        return out.view(x.shape)


def _window_index(ids_keep: torch.Tensor, grid_size: tuple[int, int], side: int, rim: int) -> torch.Tensor:
    """Where each visible patch finds its window: `(M * K, w, w)` with `w = side + 2 * rim`.

    Entries are rows of the list of all visible tokens, `M * K * side * side` long; that length itself stands for a
    position that is masked or outside of the image.
    """
    (M, K), (rows, columns) = ids_keep.shape, grid_size
    device = ids_keep.device
    nothing = M * K * side * side
    table = torch.full((M, rows * side + 2 * rim, columns * side + 2 * rim), nothing, device=device)
    view = torch.arange(M, device=device).view(M, 1, 1, 1)
    # The table has a rim, so a patch's own tokens start `rim` after its window.
    top, left = (ids_keep // columns * side)[..., None, None], (ids_keep % columns * side)[..., None, None]
    own, window = torch.arange(side, device=device) + rim, torch.arange(side + 2 * rim, device=device)
    # (M, K, side, side) and (M, K, w, w) by broadcasting rows against columns
    table[view, top + own[:, None], left + own] = torch.arange(nothing, device=device).view(M, K, side, side)
    return table[view, top + window[:, None], left + window].flatten(0, 1)


def _windows(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens (N, C) to windows (M * K, C, w, w) in the channels-last memory format."""
    with_nothing = torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])])
    return with_nothing.index_select(0, index.flatten()).unflatten(0, index.shape).permute(0, 3, 1, 2)


def _convolve(windows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Windows (M * K, C, w, w) to tokens (N, C)."""
    out = F.conv2d(windows, weight, bias, groups=weight.shape[0])
    return out.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])


class _WindowConv(torch.autograd.Function):
    """Keeps the visible tokens, not the windows made of them, which are several times larger."""

    @staticmethod
    def forward(
        ctx: Any, tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(tokens, weight, index)
        ctx.bias_dtype = bias.dtype
        with torch.autocast(tokens.device.type, enabled=False):
            return _convolve(_windows(tokens, index), weight.to(tokens.dtype), bias.to(tokens.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tokens, weight, index = ctx.saved_tensors
        C, kernel_size = weight.shape[0], weight.shape[-1]
        with torch.autocast(tokens.device.type, enabled=False):
            # A is in B's window where B is in A's, so the gradient is the same operation with the kernel turned round.
            flipped = weight.to(grad.dtype).flip(2, 3)
            grad_tokens = _convolve(_windows(grad, index), flipped, None) if ctx.needs_input_grad[0] else None
            side = index.shape[-1] - kernel_size + 1
            _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
                grad.view(-1, side, side, C).permute(0, 3, 1, 2),
                _windows(tokens, index),
                weight.to(tokens.dtype),
                [C],
                [1, 1],
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                C,
                [False, *ctx.needs_input_grad[1:3]],
            )
        return (
            grad_tokens,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(ctx.bias_dtype),
            None,
        )
