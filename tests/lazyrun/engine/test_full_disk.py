"""Logs, metrics and messages of a run whose files cannot grow any more."""

import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from soaking.sandbox import Limits, run
from torch import nn

from lazyrun.engine.metric_writers import MetricsFile
from lazyrun.engine.run_folder import set_up_logging
from lazyrun.engine.trainer import Trainer
from pretrain.common.commands import exit_on_user_error

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA")


def told(command, size):
    def with_one_line():
        with exit_on_user_error():
            command()

    return run(with_one_line, Limits(file_size=size))


def test_a_log_that_cannot_be_written_says_so_once(tmp_path):
    def log():
        set_up_logging(tmp_path, "lazyrun")
        for number in range(100):
            logging.getLogger("lazyrun").warning(f"message {number}")

    ended = told(log, 300)
    assert ended.fault is None and ended.code == 0
    assert ended.output.count("log.txt could not be written: File too large; it ends here.") == 1
    assert "message 99" in ended.output and (tmp_path / "log.txt").stat().st_size == 300


def write_metrics(path, iteration):
    with EventStorage(iteration) as storage:
        storage.put_scalar("loss", 1.5)
        writer = MetricsFile(path)
        writer.write()
        writer.close()


def test_metrics_name_their_file_and_go_on_after_a_half_line(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(path, 0)
    whole = path.stat().st_size
    ended = told(lambda: write_metrics(path, 1), whole + 5)
    assert ended.code == 1 and f"error: {path} could not be written: File too large" in ended.output
    assert path.stat().st_size == whole + 5
    write_metrics(path, 2)
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [0, 2]


class Squares(nn.Linear):
    def forward(self, batch):
        return {"loss": super().forward(batch).square().mean()}


class Fails(HookBase):
    def after_step(self):
        raise OSError(28, "No space left on device", "a.pth")

    def after_train(self):
        raise ZeroDivisionError


class Ends(HookBase):
    ended = False

    def after_train(self):
        self.ended = True


def test_what_ends_a_training_is_not_hidden_by_what_follows(caplog):
    model, last = Squares(2, 1), Ends()
    trainer = Trainer(model, [torch.ones(1, 2)], torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([Fails(), last])
    with pytest.raises(OSError, match="No space left"):
        trainer.train(0, 1)
    assert last.ended
    assert "Training stopped: [Errno 28] No space left on device: 'a.pth'" in caplog.text


def test_a_file_that_pytorch_cannot_write(tmp_path):
    """detectron2's own results of a segmentation, of which PyTorch says "unexpected pos"."""

    def save():
        with open(tmp_path / "sem_seg_evaluation.pth", "wb") as f:
            torch.save({"IoU": torch.zeros(1000)}, f)

    ended = told(save, 500)
    assert ended.code == 1 and "error: A file could not be written" in ended.output and ended.fault is None
    ended = told(lambda: Path(tmp_path / "a").write_bytes(bytes(1000)), 500)
    assert ended.code == 1 and "error: A file could not be written: File too large" in ended.output
