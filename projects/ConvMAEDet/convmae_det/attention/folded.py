"""Attention with decomposed relative positions as plain scaled dot-product attention with longer heads.

Decomposed relative positions (MViTv2, arXiv:2112.01526, eq. 4; ViTDet, arXiv:2203.16527) add
`q·Rh[qy, ky] + q·Rw[qx, kx]` to the logits. With `eh = q·Rh` (N × H) and `ew = q·Rw` (N × W),

    q·k·scale + bias  =  [q·scale, eh, ew] · [k, onehot(ky), onehot(kx)],

so the sum is plain scaled dot-product attention with a head dimension of `d + H + W`, exact to rounding.
"""

import torch
import torch.nn.functional as F
from einops import rearrange

__all__ = ["folded_attention"]


def folded_attention(
    qkv: torch.Tensor,
    pad: torch.Tensor | None,
    rel_pos_h: torch.Tensor | None,
    rel_pos_w: torch.Tensor | None,
    num_heads: int,
    window: tuple[int, int],
) -> torch.Tensor:
    """Multi-head attention within each window of a grid.

    Args:
        qkv: queries, keys and values `(B, H, W, 3 * C)`, laid out (three, head, d) in the last dimension.
        pad: what tokens below and right of the grid hold `(3 * C,)`, where windows reach over it; None for zeros.
        rel_pos_h: embeddings of the relative rows `(h, h, d)` of query and key in a window; None for no positions.
        rel_pos_w: the same for columns, `(w, w, d)`.
        num_heads: attention heads; they divide C.
        window: height h and width w of the windows in tokens; the grid's own for global attention.

    Returns:
        `(B, H, W, C)`, before the output projection.
    """
    B, H, W, _ = qkv.shape
    h, w = window
    # An export with symbolic sizes cannot ask whether windows cover its grid; global attention has that grid's sizes.
    symbolic = isinstance(H, torch.SymInt)
    whole = isinstance(h, torch.SymInt) if symbolic else window == (H, W)
    # ONNX rounds quotients towards zero: ceil(H / h) must not be written -(-H // h).
    rows, columns = (1, 1) if whole else ((H + h - 1) // h, (W + w - 1) // w)
    # It always pads, too: whether that is needed is known only when the exported model runs.
    if not whole and (symbolic or H % h or W % w):
        qkv = _pad(qkv, pad, rows * h, columns * w)
    q, k, v = rearrange(
        qkv,
        "b (nh h) (nw w) (three heads d) -> three (b nh nw) heads h w d",
        nh=rows,
        h=h,
        nw=columns,
        w=w,
        three=3,
        heads=num_heads,
    )
    out = _attend(q, k, v, rel_pos_h, rel_pos_w, window)
    out = rearrange(out, "(b nh nw) heads (h w) d -> b (nh h) (nw w) (heads d)", b=B, nh=rows, nw=columns, h=h)
    return out if whole else _crop(out, H, W)


def _crop(x: torch.Tensor, H: int, W: int) -> torch.Tensor:
    """The upper left H × W of a grid `(B, H', W', C)`."""
    if isinstance(H, torch.SymInt):  # whether a slice is the whole is a case of its own, which an export cannot decide
        return x.index_select(1, torch.arange(H, device=x.device)).index_select(2, torch.arange(W, device=x.device))
    return x[:, :H, :W]


def _pad(qkv: torch.Tensor, pad: torch.Tensor | None, height: int, width: int) -> torch.Tensor:
    """Grows the grid at the bottom and right by tokens that hold `pad`."""
    B, H, W, C = qkv.shape
    fill = qkv.new_zeros(C) if pad is None else pad.to(qkv.dtype)
    if isinstance(H, torch.SymInt):  # concatenating nothing is a case of its own, which an export cannot decide
        row, column = (torch.arange(n, device=qkv.device) for n in (height, width))
        outside = (row >= H)[:, None, None] | (column >= W)[:, None]
        return torch.where(outside, fill, F.pad(qkv, (0, 0, 0, width - W, 0, height - H)))
    qkv = torch.cat([qkv, fill.expand(B, H, width - W, C)], dim=2)
    return torch.cat([qkv, fill.expand(B, height - H, width, C)], dim=1)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rel_pos_h: torch.Tensor | None,
    rel_pos_w: torch.Tensor | None,
    window: tuple[int, int],
) -> torch.Tensor:
    """Attention within each window: q, k, v `(B, heads, H, W, d)` to `(B, heads, H * W, d)`."""
    (H, W), d = window, q.shape[-1]
    if rel_pos_h is None or rel_pos_w is None:
        q, k, v = (t.flatten(2, 3) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=d**-0.5)
    bias_h = torch.einsum("bnhwd,hkd->bnhwk", q, rel_pos_h.to(q))
    bias_w = torch.einsum("bnhwd,wkd->bnhwk", q, rel_pos_w.to(q))
    onehot_h = torch.eye(H, dtype=q.dtype, device=q.device)[:, None].expand(H, W, H)
    onehot_w = torch.eye(W, dtype=q.dtype, device=q.device).expand(H, W, W)
    # The GPU's memory-efficient kernel takes half-precision heads in multiples of 8 only; zeros change nothing.
    zeros = -(d + H + W) % 8
    q = F.pad(torch.cat([q * d**-0.5, bias_h, bias_w], dim=-1), (0, zeros)).flatten(2, 3)
    onehot = F.pad(torch.cat([onehot_h, onehot_w], dim=-1), (0, zeros))
    k = torch.cat([k, onehot.expand(*k.shape[:4], -1)], dim=-1).flatten(2, 3)
    v = v.flatten(2, 3)
    if v.device.type == "cpu":
        # The CPU's fused kernel wants one head dimension for all three.
        return F.scaled_dot_product_attention(q, k, F.pad(v, (0, q.shape[-1] - d)), scale=1.0)[..., :d]
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)
