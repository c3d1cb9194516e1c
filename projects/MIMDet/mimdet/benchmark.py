"""What MIMDet is measured at: several shares of the tokens that its encoder sees."""

from torch import nn

from lazyrun.benchmarks.detector import Case
from lazyrun.benchmarks.models import changed_net, checkpointed

__all__ = ["at_sample_ratios"]

SAMPLE_RATIOS = (0.25, 0.5, 1.0)


def at_sample_ratios(model: nn.Module, case: Case) -> dict[str, nn.Module]:
    """The detector at each of :data:`SAMPLE_RATIOS`, and where the case asks for it with checkpointing as well."""
    models = {f"sample ratio {ratio:g}": changed_net(model, sample_ratio=ratio) for ratio in SAMPLE_RATIOS}
    if case.act_checkpoint and case.mode == "train":
        models |= {f"{name}, checkpointed": checkpointed(m) for name, m in models.items()}
    return models
