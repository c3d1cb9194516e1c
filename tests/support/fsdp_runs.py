"""Trainings one after the other in the processes of torchrun, which cost their imports once: `fsdp_runs.py JOBS.json`.

A job is `{"command": "pretrain" or "finetune", "argv": [...]}`. With `"copy": [from, to]` the first process copies a
folder before it starts. With `"spoil": true` the loss of the last process is infinite in mixed precision in the second
step, and so has to be computed again.
"""

import faulthandler
import json
import shutil
import sys
from pathlib import Path

import torch

from pretrain.common.distributed import in_world
from pretrain.models.autoencoder import ReconstructionLoss
from pretrain.training.args import parse_args
from pretrain.training.classification_args import parse_finetune_args
from pretrain.training.finetuning import finetuning_parts
from pretrain.training.pretraining import pretraining_parts
from pretrain.training.run import train

COMMANDS = {"pretrain": (parse_args, pretraining_parts), "finetune": (parse_finetune_args, finetuning_parts)}
PATIENCE = 600
"""Seconds after which processes that wait for each other tell where, and end."""


def spoiling(forward, is_last):
    calls = 0

    def spoiled(self, *args, **kwargs):
        nonlocal calls
        loss = forward(self, *args, **kwargs)
        if not (self.model.training and torch.is_autocast_enabled("cpu")):
            return loss
        calls += 1
        return loss * float("inf") if calls == 2 and is_last else loss

    return spoiled


def run(world, device):
    forward = ReconstructionLoss.forward
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if "copy" in job and world.is_main:
            shutil.copytree(*job["copy"])
        world.gather(None)  # the others wait for the copy
        ReconstructionLoss.forward = spoiling(forward, world.rank == world.size - 1) if job.get("spoil") else forward
        parse, make_parts = COMMANDS[job["command"]]
        train(parse(job["argv"]), world, device, make_parts)


faulthandler.dump_traceback_later(PATIENCE, exit=True)
in_world("cpu", run)
