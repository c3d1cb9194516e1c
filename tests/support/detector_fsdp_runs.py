"""Detectors trained one after the other in two processes, which cost their imports once: `detector_fsdp_runs.py FILE`.

The file is a JSON list of jobs `{"opts": [key=value, ...]}`; with `"from": CHECKPOINT` the run goes on from a copy of
that file. Before them comes what :func:`steps_of_a_small_model` looks at.
"""

import faulthandler
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from lazyrun.api import import_plugins
from lazyrun.engine.run import run
from lazyrun.engine.sharding import shard_model
from lazyrun.engine.trainer import Trainer
from pretrain.common.sharding import full_weights

CONFIG = "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"
PATIENCE = 300
"""Seconds after which processes that wait for each other tell where, and end."""


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x):
        return x + self.linear(x).relu()


class Small(nn.Module):
    """A backbone and two heads, the second of which runs in the first process alone."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(5, 5), nn.Sequential(Block(), Block()))
        self.head, self.other_head = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, batch):
        features = self.backbone(batch)
        losses = {"loss": self.head(features).float().square().mean()}
        if comm.get_rank() == 0:
            losses["other"] = self.other_head(features).float().square().mean()
        else:
            losses["other"] = losses["loss"] * 0
        return losses


def batches() -> torch.Tensor:
    """`(processes, steps, micro-batches, images, 5)`; one of the second process overflows in the second step."""
    images = torch.randn(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    images[1, 1, 0] *= 1e14
    return images


def steps_of_a_small_model(folder: Path) -> None:
    """Weights after each of three steps with loss scaling, in float32 and in bfloat16."""
    found = {}
    for amp_dtype in (None, torch.bfloat16):
        torch.manual_seed(comm.get_rank())  # all begin as the first process does
        model = Small()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
        images = batches()[comm.get_rank()].flatten(0, 1)
        trainer = Trainer(model, images, optimizer, amp_dtype, grad_accum_steps=2, clip_grad=0.5)
        trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**50, enabled=True)
        states = [{name: t.clone() for name, t in model.state_dict().items()}]
        shard_model(model, optimizer)
        assert all(isinstance(p, DTensor) for group in optimizer.param_groups for p in group["params"])
        with EventStorage() as trainer.storage:
            for trainer.iter in range(3):
                trainer.run_step()
                states.append(full_weights(model))
                assert (model.other_head.weight.grad.full_tensor() != 0).any()
        found[str(amp_dtype)] = {"states": states, "scale": trainer.grad_scaler.get_scale()}
    torch.save(found, folder / f"small_{comm.get_rank()}.pth")


def main(jobs: Path) -> None:
    distributed.init_process_group("gloo")
    comm.create_local_process_group(2)
    steps_of_a_small_model(jobs.parent)
    import_plugins()
    for job in json.loads(jobs.read_text()):
        folder = next(opt.partition("=")[2] for opt in job["opts"] if opt.startswith("train.output_dir="))
        if "from" in job and comm.is_main_process():
            os.makedirs(folder)
            Path(folder, Path(job["from"]).name).write_bytes(Path(job["from"]).read_bytes())
        comm.synchronize()
        options = {"config_file": CONFIG, "resume": "from" in job, "eval_only": False, "dry_run": False}
        run(Namespace(opts=job["opts"], **options))
    distributed.destroy_process_group()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    main(Path(sys.argv[1]))
