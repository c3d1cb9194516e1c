"""What is written into a run's folder."""

import errno
import logging

import pytest
from detectron2.config import lazy
from omegaconf import OmegaConf

from lazyrun.engine.run_folder import choose_output_dir, write_config
from pretrain.common.errors import UserError


def test_a_config_that_cannot_be_written_ends_the_run_without_a_traceback_in_its_log(tmp_path, monkeypatch, caplog):
    """detectron2 logs the error and goes on."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lazy.PathManager, "open", full)
    cfg = OmegaConf.create({"train": {"output_dir": str(tmp_path)}})
    with caplog.at_level(logging.INFO), pytest.raises(OSError, match="No space left"):
        write_config(cfg)
    assert not caplog.records and not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_config(cfg)
    assert "output_dir" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "message"), [("", r"train\.output_dir is empty; name a"), ("a\udcff", "is not UTF-8")]
)
def test_a_folder_without_a_usable_name(name, message):
    """A shell's variable that is not set gave the current folder the run's files."""
    cfg = OmegaConf.create({"train": {"output_dir": name}})
    with pytest.raises(UserError, match=message):
        choose_output_dir(cfg, resume=False, eval_only=False)
