"""Gradients come with their parameters' strides, in every model: DDP warns of others."""

import warnings

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.common.gradient_strides import match_gradient_strides
from pretrain.models import build_model
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.names import CLASSIFIERS, MODELS, VIDEO_CLASSIFIERS, VIDEO_MODELS

AUTOENCODERS, CLIPS = (*MODELS, *VIDEO_MODELS), (*VIDEO_MODELS, *VIDEO_CLASSIFIERS)
TINY = [name for name in (*AUTOENCODERS, *CLASSIFIERS, *VIDEO_CLASSIFIERS) if "tiny" in name]


@pytest.fixture(scope="module", autouse=True)
def every_warning():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)
    distributed.destroy_process_group()


def strides_and_warnings(model, forward, *inputs):
    """Of the trained parameters and of their gradients, by name, and how often DDP warned."""
    loss = DistributedDataParallel(forward)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(*inputs).sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    warned = sum("Grad strides do not match" in str(warning.message) for warning in caught)
    return {n: p.stride() for n, p in trained.items()}, {n: p.grad.stride() for n, p in trained.items()}, warned


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("name", TINY)
def test_no_model_makes_ddp_warn(name, in_chans):
    model = build_model(name, img_size=32, in_chans=in_chans, **({"num_frames": 2} if name in CLIPS else {}))
    imgs = torch.rand(2, in_chans, *([2] if name in CLIPS else []), 32, 32)
    match_gradient_strides(model)
    forward, inputs = (ReconstructionLoss(model), (imgs, 0.75)) if name in AUTOENCODERS else (model, (imgs,))
    parameters, gradients, warned = strides_and_warnings(model, forward, *inputs)
    assert gradients == parameters and not warned


class ChannelsLast(nn.Module):
    """Kernels that are used with channels last, so that their gradients come with them last."""

    def __init__(self):
        super().__init__()
        shapes = {"depthwise": (4, 1, 3, 3), "pointwise": (4, 5, 1, 1), "full": (4, 5, 3, 3)}
        self.kernels = nn.ParameterDict({name: torch.randn(shape) for name, shape in shapes.items()})

    def forward(self):
        return sum(kernel.permute(0, 2, 3, 1).flatten().sin().sum() for kernel in self.kernels.values())


def test_gradients_are_the_same_with_other_strides():
    """Two of the three need it: PyTorch copies gradients whose values really lie in another order."""
    plain, model = ChannelsLast(), ChannelsLast()
    model.load_state_dict(plain.state_dict())
    match_gradient_strides(model)
    parameters, gradients, warned = strides_and_warnings(plain, plain)
    differ = {name for name, stride in parameters.items() if stride != gradients[name]}
    assert differ == {"kernels.depthwise", "kernels.pointwise"} and warned == 2
    parameters, gradients, warned = strides_and_warnings(model, model)
    assert gradients == parameters and not warned
    for name, kernel in model.kernels.items():
        assert torch.equal(kernel.grad, plain.kernels[name].grad)
