"""What the decoder of images and clips shares; its numbers are tested with the models."""

import math
import warnings

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from pretrain.models import build_model
from pretrain.models.autoencoder import ReconstructionLoss

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


@pytest.fixture
def every_warning():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    "name",
    [
        "convmae_convvit_tiny_patch16",
        "fastconvmae_convvit_tiny_patch8",
        "convmaev2_convvit_tiny_patch8_32",
        "videoconvmae_convvit_tiny_patch16",
    ],
)
def test_gradients_have_the_layout_that_distributed_training_expects(name, every_warning):
    video = name.startswith("video")
    model = build_model(name, img_size=32, **({"num_frames": 2} if video else {}))
    loss = DistributedDataParallel(ReconstructionLoss(model))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Grad strides do not match")
        loss(torch.rand(2, 3, *([2] if video else []), 32, 32), 0.75).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {n: p.grad.stride() for n, p in trained.items()} == {n: p.stride() for n, p in trained.items()}
