"""What a log keeps of the run that is resumed."""

import json

import pytest

from pretrain.training.metrics import MetricWriter


@pytest.mark.parametrize(("epoch", "kept"), [(-1, []), (0, [-1]), (1, [-1, 0]), (2, [-1, 0, 1])])
def test_lines_of_the_epoch_that_begins_and_later_ones_go(tmp_path, epoch, kept):
    lines = "".join(json.dumps({"epoch": e}) + "\n" for e in (-1, 0, 1))
    (tmp_path / "log.jsonl").write_text(lines + '{"epoch": 0, "train_lo')  # cut by a kill
    MetricWriter(tmp_path, epoch, step=0).close()
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == kept
