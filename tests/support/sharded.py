"""Tests that share out weights, for a PyTorch that can."""

import pytest
from torch.distributed.fsdp import FSDPModule

__all__ = ["needs_sharding"]

needs_sharding = pytest.mark.skipif(not hasattr(FSDPModule, "reset_iter_state"), reason="needs PyTorch 2.13")
