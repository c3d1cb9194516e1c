"""The segmentation model against the published code's outputs, gradients, names and shapes."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from parity import REPO, gradient_errors, relative_error
from segmentor import build_segmentor

CONFIGS = REPO / "projects" / "ConvMAESeg" / "configs" / "common"
COUNTER = "num_batches_tracked"


@pytest.fixture
def model(golden):
    reference = golden("upernet_tiny")
    config = dict(reference.config)
    sizes = {name: config.pop(name) for name in ("embed_dim", "depth", "num_heads")}
    model = build_segmentor(**config, sizes=sizes).eval()
    result = model.load_state_dict(reference.group("param"), strict=False)
    assert not result.unexpected_keys
    # These follow from the size, and the golden file leaves them out.
    assert all(name.endswith("relative_position_index") for name in result.missing_keys)
    return model


def test_outputs_and_gradients(golden, model):
    reference = golden("upernet_tiny")
    features = model.backbone(reference["input.images"])
    for i, (name, feature) in enumerate(features.items()):
        assert relative_error(feature, reference[f"output.feature{i}"]) <= 1e-5, name
    outputs = {"logits": model.decode_head(features), "aux_logits": model.auxiliary_head(features)}
    for name, output in outputs.items():
        assert relative_error(output, reference[f"output.{name}"]) <= 1e-5, name
    sum((output * reference[f"grad_weight.{name}"]).sum() for name, output in outputs.items()).backward()
    errors = gradient_errors(model, reference.group("grad"))
    assert max(errors.values()) <= 1e-4, errors


@pytest.fixture(scope="module")
def base():
    """ConvMAE-B and its optimizer from the config, without memory for the weights."""
    cfg = LazyConfig.load(str(CONFIGS / "models" / "upernet_convmae.py"))
    cfg.data = {"image_size": 512}
    cfg.optimizer = LazyConfig.load(str(CONFIGS / "optim.py")).optimizer
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    return model, instantiate(cfg.optimizer)


def test_names_and_shapes(base, reference_names):
    model, _ = base
    shapes = {k: list(v.shape) for k, v in model.state_dict().items() if not k.endswith(COUNTER)}
    assert shapes == reference_names["upernet_convmae_base"]
    assert sum(p.numel() for p in model.parameters()) == reference_names["num_params"]["upernet_convmae_base"]


def expected_layer(name: str) -> int:
    part = name.split(".")
    if part[0] == "backbone":
        if part[1] in (
            "patch_embed1",
            "patch_embed2",
            "patch_embed3",
            "patch_embed4",
            "pos_embed",
            "blocks1",
            "blocks2",
        ):
            return 0
        if part[1] == "blocks3":
            return int(part[2]) + 1
    return 12


def test_learning_rate_and_weight_decay_of_every_parameter(base):
    model, optimizer = base
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    assert groups.keys() == {id(p) for p in parameters.values()}
    for name, p in parameters.items():
        group = groups[id(p)]
        assert group["lr"] == pytest.approx(1e-4 * 0.75 ** (12 - expected_layer(name)), rel=1e-9), name
        assert group["weight_decay"] == (0.0 if p.ndim == 1 or name.endswith(".bias") else 0.05), name
        assert group["betas"] == (0.9, 0.999)
    assert {expected_layer(name) for name in parameters} == set(range(13))


def test_schedule():
    multiplier = instantiate(LazyConfig.load(str(CONFIGS / "optim.py")).lr_multiplier)
    assert multiplier(0.0) == pytest.approx(1e-6)
    for iteration in (1500, 80_000, 159_999):
        assert multiplier(iteration / 160_000) == pytest.approx(1 - iteration / 160_000, rel=1e-6)
    assert multiplier(750 / 160_000) == pytest.approx((1e-6 + 1 - 1500 / 160_000) / 2)
