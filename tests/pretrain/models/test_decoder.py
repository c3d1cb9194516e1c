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


def test_the_loss_keeps_one_tensor_of_the_predictions_size():
    """`F.mse_loss` keeps three: both arguments, and one behind the storage of its scalar."""
    model = build_model("convmae_convvit_tiny_patch16", img_size=32)
    pred, target = torch.randn(2, 3, 50, requires_grad=True), torch.randn(2, 3, 50)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.nbytes), t)[1], lambda t: t):
        loss = model.reconstruction_error(pred * 1.0, target)
    assert sum(kept) < 1.1 * pred.nbytes
    assert loss.untyped_storage().nbytes() == loss.nbytes
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(pred, target))
