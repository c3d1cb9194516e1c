"""A compiled backbone computes and trains as the uncompiled one, under the same names."""

import logging

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from shapes import CONFIG, REPO, SMALL
from torch import nn

from lazyrun.config.loading import load_config
from lazyrun.engine.compile import compile_backbone
from lazyrun.engine.evaluate import evaluate
from pretrain.common.errors import UserError


def make_model(*overrides: str) -> nn.Module:
    torch.manual_seed(0)
    model = instantiate(load_config(str(REPO / CONFIG), [*SMALL, *overrides]).model)
    for p in model.backbone.parameters():  # positions and scales begin at 0, where gradients would hide mistakes
        nn.init.normal_(p, std=0.1)
    return model


def gradients(model: nn.Module) -> list[torch.Tensor]:
    outputs = model.backbone(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    sum(output.square().mean() for output in outputs.values()).backward()
    return [*outputs.values(), *(p.grad for p in model.backbone.parameters())]


def test_compiled_backbone_trains_as_the_uncompiled_one_and_evaluates_any_size(monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "torch.__trace")  # formatting its records would take longer than compiling
    overrides = ["model.backbone.net.use_act_checkpoint=[true,false,true]", "model.backbone.net.drop_path_rate=0"]
    expected, ours = make_model(*overrides), make_model(*overrides)
    torch._dynamo.reset()
    compiled = torch._dynamo.utils.counters["stats"]
    compiled.clear()
    compile_backbone(ours, "aot_eager")
    assert ours.state_dict().keys() == expected.state_dict().keys()
    for a, b in zip(gradients(ours), gradients(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    calls = compiled["calls_captured"]
    assert calls > 50

    def inference(model, *_) -> dict:
        images = torch.randn(1, 3, 96, 64)
        with torch.no_grad():
            for a, b in zip(model.backbone(images).values(), expected.backbone(images).values(), strict=True):
                assert torch.equal(a, b)
        return {}

    monkeypatch.setattr("lazyrun.engine.evaluate.inference_on_dataset", inference)
    cfg = {"dataloader": {"test": {}, "evaluator": {}}, "test": {"tta": {"enabled": False}}}
    evaluate(OmegaConf.create(cfg), ours)
    assert compiled["calls_captured"] == calls


def test_false_compiles_nothing_and_an_unknown_backend_is_an_error():
    model = make_model()
    compile_backbone(model, False)
    assert model.backbone._compiled_call_impl is None
    with pytest.raises(UserError, match=r"train\.compile=fast is neither true, false, eager, aot_eager nor .*inductor"):
        compile_backbone(model, "fast")


def test_backbones_for_images_of_many_sizes_are_warned_of(caplog):
    model = make_model()
    compile_backbone(model, "eager")
    assert not caplog.records
    model.backbone._square_pad = 0
    compile_backbone(model, "eager")
    assert "this model does not pad images to one size" in caplog.text
