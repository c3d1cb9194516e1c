"""Sliding windows and test-time augmentation the plain way: a canvas of the whole image, one window at a time."""

import torch
import torch.nn.functional as F


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def slide(network, image: torch.Tensor, size: tuple[int, int], window: int, stride: int) -> torch.Tensor:
    """Logits `(1, K, *size)` of an image `(1, C, H, W)`, as mmsegmentation describes its "slide" mode."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, max(0, window - width), 0, max(0, window - height)))
    total, count = 0, torch.zeros(1, 1, *padded.shape[-2:])
    rows = max(padded.shape[-2] - window + stride - 1, 0) // stride + 1
    columns = max(padded.shape[-1] - window + stride - 1, 0) // stride + 1
    for i in range(rows):
        for j in range(columns):
            bottom, right = min(i * stride + window, padded.shape[-2]), min(j * stride + window, padded.shape[-1])
            top, left = bottom - window, right - window
            logits = resize(network(padded[:, :, top:bottom, left:right]), (window, window))
            around = (left, padded.shape[-1] - right, top, padded.shape[-2] - bottom)
            total = total + F.pad(logits, around)
            count[:, :, top:bottom, left:right] += 1
    return resize((total / count)[:, :, :height, :width], size)
