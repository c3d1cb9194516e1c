"""How much of a normalised target is the offset between channels."""

import logging

import pytest
import torch

from pretrain.data.datasets import MaskedSample
from pretrain.evaluation import targets
from pretrain.models import build_model


def test_share_is_that_of_the_variance_between_channels():
    offsets = torch.tensor([0.0, 1.0, 2.0])  # variance 2/3
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]  # variance 1 within each channel
    patch = (offsets + noise).flatten()[None, None]
    assert targets.channel_share(patch, 3) == pytest.approx((2 / 3) / (2 / 3 + 1))
    assert targets.channel_share(patch.expand(2, 5, -1), 3) == pytest.approx(0.4)
    assert targets.channel_share(noise.flatten()[None, None], 1) == 0.0


@pytest.mark.parametrize(("grey", "warned"), [(True, True), (False, False)])
def test_warning(grey, warned, caplog):
    model = build_model("convmae_convvit_tiny_patch8")
    generator = torch.Generator().manual_seed(0)
    offset = torch.tensor([-2.0, 0.0, 2.0])[:, None, None]

    class Images(targets.ImageDataset):
        def __init__(self):
            pass

        def __len__(self) -> int:
            return 3

        def __getitem__(self, key) -> MaskedSample:
            noise = torch.randn(3, 64, 64, generator=generator)
            return MaskedSample(offset + 0.1 * noise if grey else noise, torch.zeros(64), torch.empty(0))

    with caplog.at_level(logging.WARNING):
        targets.warn_of_flat_targets(model, Images())
    assert ("try --no-norm_pix_loss" in caplog.text) is warned
