"""What the decoder of images and clips shares; its numbers are tested with the models."""

import math

import pytest
import torch

from pretrain.models import build_model

SMALL = dict(embed_dim=(8, 12, 48), depth=(1, 1, 1), num_heads=4, decoder_embed_dim=48, decoder_depth=1, img_size=32)


@pytest.mark.parametrize(
    "name",
    [
        "convmae_convvit_base_patch16",
        "convmaev2_convvit_base_patch16",
        "videoconvmae_convvit_base_patch16",
    ],
)
def test_every_weight_of_the_transformer_begins_as_in_mae(name):
    """Uniform within Xavier's bound, for the last patch embedding too, whose kernel counts as a linear layer."""
    torch.manual_seed(0)
    options = {"num_frames": 2, "decoder_num_heads": 4} if "video" in name else {"decoder_num_heads": 4}
    model = build_model(name, **SMALL, **options)
    weights = {n: p for n, p in model.named_parameters() if p.ndim == 2 and n.endswith("weight")}
    weights["patch_embed3"] = model.patch_embed3.proj.weight.flatten(1)
    for weight in weights.values():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.98 * bound < weight.abs().max() <= bound


def test_the_loss_holds_no_more_than_a_number():
    """`F.mse_loss` leaves all squares behind its scalar."""
    model = build_model("convmae_convvit_tiny_patch16", img_size=32)
    loss = model.reconstruction_error(torch.randn(2, 3, 50), torch.randn(2, 3, 50))
    assert loss.untyped_storage().nbytes() == loss.nbytes
