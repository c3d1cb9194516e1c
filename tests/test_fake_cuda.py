"""What runs on a GPU, without one: training passes on fake CUDA tensors, where operators refuse to mix devices; and the
hand-written autograd functions in half precision."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from convmae_det.attention.chunked import chunked_attention
from convmae_det.attention.table import table_attention
from lazyrun.planning.config import config_to_plan
from pretrain.common.planning.backward import run_backward, run_node
from pretrain.common.planning.fake import fake_tensors, make_fake, unfilled
from pretrain.models import build_model
from pretrain.models.masked_conv import VisibleConv
from pretrain.models.mixture import MixtureLoss, add_target_heads
from pretrain.models.recompute import norm_linear, norm_mlp

CUDA = torch.device("cuda:0")
AMPS = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = pytest.mark.parametrize("amp", AMPS)
CONFIGS = {
    "detector": "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py",
    "MIMDet": "projects/MIMDet/configs/shapes/mimdet_tiny.py",
    "UperNet": "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py",
}
PRETRAINING = ("convmae_convvit_tiny_patch8", "fastconvmae_convvit_tiny_patch8", "convmaev2_convvit_tiny_patch8")
CLASSIFIERS = ("convvit_tiny_patch8", "convvitv2_tiny_patch8")


def autocast(amp, device="cuda"):
    return torch.autocast(device, dtype=AMPS[amp]) if AMPS[amp] else nullcontext()


def check_training(model, forward, amp, unused=()):
    """A loss, and a gradient of every trained parameter that is used, on the GPU and of the types they must have."""

    def loss():
        with autocast(amp):
            result = forward()
        assert result.device == CUDA and result.dtype == torch.float32
        return result

    run_backward(loss)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and not name.startswith(unused)}
    assert trained and not [name for name, p in trained.items() if p.grad is None]
    for p in trained.values():
        assert p.grad.device == CUDA and p.grad.dtype == p.dtype and p.grad.shape == p.shape


@PRECISIONS
@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining(name, amp):
    model = unfilled(lambda: build_model(name))
    with fake_tensors() as mode:
        make_fake(model, mode, CUDA).train()
        imgs, noise = torch.empty(4, 3, 64, 64, device=CUDA), torch.empty(4, 64, device=CUDA)
        check_training(model, lambda: model.forward_loss(imgs, 0.75, noise), amp)


@PRECISIONS
def test_pretraining_on_several_targets(amp):
    class Teacher(nn.Module):
        dim = 8

        def forward(self, imgs, grid_size):
            return torch.empty(len(imgs), grid_size[0] * grid_size[1], self.dim, device=imgs.device)

    def build():
        model = build_model("convmae_convvit_tiny_patch8")
        add_target_heads(model, {"rgb": None, "other": Teacher.dim}, None)
        return model

    model = unfilled(build)
    with fake_tensors() as mode:
        make_fake(model, mode, CUDA).train()
        loss = MixtureLoss(model, {"rgb": 1.0, "other": 0.5}, {"other": Teacher()})
        imgs, noise = torch.empty(2, 3, 64, 64, device=CUDA), torch.empty(2, 64, device=CUDA)
        check_training(model, lambda: loss(imgs, 0.75, noise)[0], amp)


@PRECISIONS
def test_pretraining_on_clips(amp):
    model = unfilled(lambda: build_model("videoconvmae_convvit_tiny_patch16", img_size=64, num_frames=4))
    with fake_tensors() as mode:
        make_fake(model, mode, CUDA).train()
        clips, noise = torch.empty(2, 3, 4, 64, 64, device=CUDA), torch.empty(2, 16, device=CUDA)
        check_training(model, lambda: model.forward_loss(clips, 0.75, noise), amp)


@PRECISIONS
@pytest.mark.parametrize("name", [*CLASSIFIERS, "videoconvvit_tiny_patch16"])
def test_classifiers(name, amp):
    video = name.startswith("video")
    clip = dict(img_size=64, num_frames=4) if video else {}
    model = unfilled(lambda: build_model(name, num_classes=5, **clip))
    with fake_tensors() as mode:
        make_fake(model, mode, CUDA).train()
        images = torch.empty(2, 3, *((4,) if video else ()), 64, 64, device=CUDA)
        with autocast(amp):
            assert model(images).dtype == (AMPS[amp] or torch.float32)
        check_training(model, lambda: model(images).float().square().mean(), amp)


@PRECISIONS
@pytest.mark.parametrize("config", CONFIGS)
def test_detectors_and_segmentor(config, amp):
    training = config_to_plan(CONFIGS[config], [], 1, 100)
    with fake_tensors() as mode:
        model = make_fake(training.model, mode, CUDA)
        # Of MIMDet's pyramid the tiny heads take two levels.
        unused = ("backbone.fpn_output4", "backbone.fpn_output5") if config == "MIMDet" else ()
        check_training(model, training.make_forward(model, 2), amp, unused)


def test_devices_that_are_mixed_are_noticed():
    with fake_tensors(), pytest.raises(RuntimeError, match=r"two (different )?devices"):
        torch.empty(2, device=CUDA) + torch.empty(2)


# The hand-written functions: made of (generator) their module, its tensor inputs and what to call.


def linear_case():
    norm, linear = nn.LayerNorm(16), nn.Linear(16, 24)
    return nn.ModuleList([norm, linear]), [torch.randn(2, 6, 16)], lambda m, x: norm_linear(x, m[0], m[1])


def mlp_case():
    parts = nn.ModuleList([nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)])
    parts.append(nn.GELU())
    return parts, [torch.randn(2, 6, 16)], lambda m, x: norm_mlp(x, m[0], m[1], m[3], m[2])


def conv_case():
    conv = nn.Conv2d(8, 8, 5, padding=2, groups=8)

    def call(m, x):
        ids_keep = torch.tensor([[0, 1, 5], [2, 3, 7]], device=x.device)
        return VisibleConv(ids_keep, (2, 4), 2).convolve(x, m.weight, m.bias)

    return conv, [torch.randn(2, 3, 4, 8)], call


def table_case():
    qkv = [torch.randn(2, 2, 12, 8) for _ in range(3)]
    return nn.Identity(), [*qkv, torch.randn(2, 5, 7)], lambda m, *tensors: table_attention(*tensors)


def chunked_case():
    inputs = [torch.randn(1, 4, 5, 48), torch.randn(48), 0.1 * torch.randn(3, 3, 8), 0.1 * torch.randn(3, 3, 8)]
    return nn.Identity(), inputs, lambda m, *tensors: chunked_attention(*tensors, 2, (3, 3))


FUNCTIONS = {
    "_NormLinear": linear_case,
    "_NormMlp": mlp_case,
    "_WindowConv": conv_case,
    "_TableAttention": table_case,
    "_ChunkedAttention": chunked_case,
}
HALF_INPUTS = ("_WindowConv", "_TableAttention", "_ChunkedAttention")
"""Those that compute in the type of their input, which under autocast is what a linear layer gave."""


def halved(name, amp, tensors):
    cast = AMPS[amp] and name in HALF_INPUTS
    return [t.detach().to(AMPS[amp]) if cast else t.detach() for t in tensors]


def node_of(out, name):
    """The function's node among those that lead to its output."""
    node = out.grad_fn
    while name not in type(node).__name__:
        node = node.next_functions[0][0]
    return node


@PRECISIONS
@pytest.mark.parametrize("name", FUNCTIONS)
def test_backward_function_on_a_gpu(name, amp):
    module, tensors, call = FUNCTIONS[name]()
    tensors = halved(name, amp, tensors)
    with fake_tensors() as mode:
        make_fake(module, mode, CUDA)
        inputs = [mode.from_tensor(t).to(CUDA).requires_grad_() for t in tensors]
        with autocast(amp):
            out = call(module, *inputs)
        assert out.device == CUDA and out.dtype == (AMPS[amp] or torch.float32)
        node = node_of(out, name)
        meta = node._input_metadata[0]
        grads = run_node(node, [torch.empty(tuple(meta.shape), dtype=meta.dtype, device=CUDA)])
        assert len(grads) == len(node.next_functions)
        pairs = [(g, edge) for g, edge in zip(grads, node.next_functions, strict=True) if edge[0] is not None]
        for grad, (following, number) in pairs:
            meta = following._input_metadata[number]
            assert grad.device == CUDA
            assert (tuple(grad.shape), grad.dtype) == (tuple(meta.shape), meta.dtype)
        # One for each tensor that it was given, in their order; the convolution's input comes to it flattened.
        wanted = [(t.numel(), t.dtype) for t in (*inputs, *module.parameters())]
        assert [(grad.numel(), grad.dtype) for grad, _ in pairs] == wanted


TOLERANCES = {"bf16": 0.04, "fp16": 0.006}
"""Largest deviation from float32, as a share of the largest value: a few units in the last place of 8 and 11 bits."""


@pytest.mark.parametrize("amp", TOLERANCES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_agrees_with_float32(name, amp):
    module, tensors, call = FUNCTIONS[name]()

    def run(amp):
        module.zero_grad(set_to_none=True)
        inputs = [t.requires_grad_() for t in halved(name, amp, tensors)]
        with autocast(amp, "cpu"):
            out = call(module, *inputs)
        torch.manual_seed(1)
        out.backward(torch.randn(out.shape).to(out.dtype))
        return [out, *(t.grad for t in inputs), *(p.grad for p in module.parameters())]

    expected, found = run("off"), run(amp)
    assert found[0].dtype == AMPS[amp]
    for reference, value in zip(expected, found, strict=True):
        assert (value.float() - reference).abs().max() <= TOLERANCES[amp] * reference.abs().max()
        assert not torch.equal(value.float(), reference)  # it was computed in half precision
