"""The gradient of softmax, in place."""

import torch

__all__ = ["softmax_backward_"]


def softmax_backward_(grad: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The gradient of the logits, written over that of the probabilities.

    PyTorch has no public function for it; its own operator does it in one pass without further memory.

    Args:
        grad: gradient of `p`, of its shape; overwritten.
        p: softmax over the last dimension.

    Returns:
        `grad`.
    """
    return torch.ops.aten._softmax_backward_data.out(grad, p, -1, p.dtype, grad_input=grad)
