"""Sliding windows without PyTorch give the class maps of the eager ones."""

import numpy as np
import pytest
import torch

from convmae_seg.sliding_window import SlidingWindow, View, pieces
from lazyrun.onnx_runner.windows import class_map


@pytest.mark.parametrize(("size", "out_size"), [((40, 50), (33, 71)), ((20, 16), (20, 16)), ((64, 24), (100, 40))])
def test_class_maps(size, out_size):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, *size, generator=generator) - 0.5
    weight = torch.randn(5, 3, 4, 4, generator=generator)

    def network(windows):
        windows = torch.nn.functional.pad(windows, (0, 24 - windows.shape[-1], 0, 24 - windows.shape[-2]))
        return torch.nn.functional.conv2d(windows, weight, stride=4)

    settings = SlidingWindow(window_size=24, stride=10)
    view = View(image, out_size, settings, network, 4, 4)
    (piece,) = pieces(5, out_size, 2**22)
    expected = view.logits(piece).argmax(0).numpy()
    ours = class_map(image.numpy(), out_size, 24, 10, lambda x: network(torch.from_numpy(x)).numpy())
    assert ours.shape == out_size and len(np.unique(expected)) > 2
    assert (ours == expected).mean() > 0.999
