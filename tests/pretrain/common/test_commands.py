"""How commands end and begin: Ctrl-C, locales without UTF-8, the option of an old launcher."""

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from pretrain.common import utf8
from pretrain.common.commands import add_launcher_option, exit_on_user_error, message_of

NAME = "Prüfling 카드.txt"

SCRIPT = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(utf8.__file__).parent)!r})  # without the package, which imports PyTorch
from utf8 import use_utf8
if __name__ == "__main__":
    use_utf8()
    print(sys.argv[1], Path(sys.argv[1]).read_text(), {NAME!r} == sys.argv[1])
"""


def test_an_ascii_locale(tmp_path):
    """File names, their contents, arguments and output are UTF-8 all the same."""
    (tmp_path / NAME).write_text("größer", encoding="utf-8")
    (tmp_path / "tool.py").write_text(SCRIPT, encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "tool.py", NAME],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"} | ascii_only,
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode() == f"{NAME} größer True\n", done.stderr.decode()


def test_ctrl_c_has_no_traceback(capsys, monkeypatch):
    monkeypatch.delenv("SHOW_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise KeyboardInterrupt
    assert stop.value.code == 130 and capsys.readouterr().err == "stopped by Ctrl-C\n"


@pytest.mark.parametrize("option", ["--local-rank=0", "--local_rank=1"])
def test_the_option_of_the_launcher_before_torchrun(option):
    parser = argparse.ArgumentParser()
    add_launcher_option(parser)
    assert vars(parser.parse_args([option])) == {} and "local" not in parser.format_help()


def test_a_loader_process_that_was_killed():
    """It is nobody's bug in the code, and none of the run's overrides are to blame for it."""
    loader = DataLoader(range(4), num_workers=1, worker_init_fn=lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError) as error:
        list(loader)
    assert re.match(
        r"A process that reads images has ended \(DataLoader worker \(pid.*--num_workers", message_of(error.value)
    )
