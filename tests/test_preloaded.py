"""Processes with libraries imported behave as new ones do."""

import os
import signal

import preloaded
import pytest

SCRIPT = """
import os, sys
assert not [name for name in sys.modules if name.startswith(("pretrain", "lazyrun"))] and "torch" in sys.modules
print(sys.argv[1:], os.environ["WORD"], os.path.basename(sys.path[0]), "HOME" in os.environ, sys.stdin.read())
if sys.argv[1] == "mistake":
    sys.exit("error: a sentence")
if sys.argv[1] == "bug":
    1 / 0
if sys.argv[1] == "killed":
    import time
    time.sleep(60)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return str(tmp_path / "script.py")


@pytest.mark.parametrize(
    ("word", "code", "error"),
    [("well", 0, ""), ("mistake", 1, "error: a sentence\n"), ("bug", 1, "ZeroDivisionError: division by zero\n")],
)
def test_ends(script, tmp_path, word, code, error):
    done = preloaded.run([script, word], {"WORD": "here"})
    assert done.returncode == code and done.stderr.endswith(error) and bool(done.stderr) == bool(error)
    assert done.stdout == f"['{word}'] here {tmp_path.name} False \n"


def test_signals_and_time_limits(script):
    process = preloaded.start([script, "killed"], {"WORD": ""})
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == process.poll() == -signal.SIGTERM
    with pytest.raises(TimeoutError, match="still running"):
        preloaded.run([script, "killed"], {"WORD": ""}, timeout=0.5)
    with pytest.raises(TimeoutError, match="still running"):
        preloaded.start([script, "killed"], {"WORD": ""}).wait(timeout=0.5)
    assert preloaded.run([script, "well"], {"WORD": ""}).returncode == 0


def test_modules_and_two_at_a_time():
    preloaded.run_as_two(["-m", "pretrain", "--help"], os.environ)
    with pytest.raises(AssertionError, match="required: --model"):
        preloaded.run_as_two(["-m", "pretrain.knn", "--no-such-option"], os.environ)
