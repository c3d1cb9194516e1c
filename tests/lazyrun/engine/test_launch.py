"""Starting runs on devices that are not there."""

from argparse import Namespace

import pytest
from omegaconf import OmegaConf

from lazyrun.engine.launch import launch
from pretrain.common.errors import UserError


@pytest.mark.parametrize("device", ["nonsense", "cpu:zero", "vulkan"])
def test_device_that_does_not_exist(device):
    with pytest.raises(UserError, match=f"Device {device} cannot be used: .* name cpu"):
        launch(lambda *_: None, Namespace(num_gpus=0, num_machines=1), OmegaConf.create({"train": {"device": device}}))
