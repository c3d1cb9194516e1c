"""The golden files and how agreement with them is measured."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden"


class Golden:
    """One golden file: outputs and gradients of the published code on seeded weights (float32, CPU)."""

    def __init__(self, name: str):
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as f:
            self.config = json.loads(f.metadata()["config"])
            self.tensors = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 (not a dict)

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key].float()

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """All tensors under `prefix.`, by the rest of their name."""
        return {k.removeprefix(prefix + "."): v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation over largest value."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item()


def gradient_errors(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """:func:`relative_error` of every parameter's gradient; the two sets of names must be the same."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert gradients.keys() == expected.keys()
    return {name: relative_error(gradients[name], expected[name]) for name in gradients}
