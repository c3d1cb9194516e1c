"""Gradients with the strides of their parameters, as DistributedDataParallel wants them."""

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["match_gradient_strides"]


def match_gradient_strides(module: nn.Module) -> None:
    """Has the gradient of each parameter come with the parameter's own strides; called before DDP wraps the module.

    A dimension of size 1 may have any stride, and a convolution over channels-last tokens gives the gradient of a 1x1
    or depthwise kernel others than the kernel has. PyTorch's accumulation of gradients copies what lies in another
    order and rightly lets these pass; DDP compares all strides and warns that "Grad strides do not match bucket view
    strides". So such a gradient is taken for a view with the kernel's strides, and nothing is copied.
    """
    for parameter in module.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(_view_with(parameter.shape, parameter.stride()))


def _view_with(shape: torch.Size, stride: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    def view(grad: torch.Tensor) -> torch.Tensor:
        same_order = all(n == 1 or a == b for n, a, b in zip(shape, grad.stride(), stride, strict=True))
        return grad.as_strided(shape, stride) if same_order else grad

    return view
