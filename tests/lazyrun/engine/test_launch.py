"""Starting runs on devices that are not there."""

from argparse import Namespace

import pytest
from omegaconf import OmegaConf
from torch.multiprocessing.spawn import ProcessExitedException

from lazyrun.engine.launch import launch
from pretrain.common.errors import UserError


@pytest.mark.parametrize("device", ["nonsense", "cpu:zero", "vulkan"])
def test_device_that_does_not_exist(device):
    with pytest.raises(UserError, match=f"Device {device} cannot be used: .* name cpu"):
        launch(lambda *_: None, Namespace(num_gpus=0, num_machines=1), OmegaConf.create({"train": {"device": device}}))


def test_a_killed_process_is_named_with_its_log(monkeypatch):
    def killed(*_, **__):
        raise ProcessExitedException("killed", 1, 123, -9, "SIGKILL")

    monkeypatch.setattr("lazyrun.engine.launch.detectron2_launch", killed)
    cfg = OmegaConf.create({"train": {"device": "cpu", "output_dir": "output/run"}})
    args = Namespace(num_gpus=0, num_machines=1, machine_rank=0, dist_url="")
    with pytest.raises(SystemExit, match=r"error: rank 1 .* ended by SIGKILL, .* output/run/log\.txt\.rank1"):
        launch(lambda *_: None, args, cfg)
