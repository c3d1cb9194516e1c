"""What each tool ends with: a user's mistake in one line, and with `--traceback` in full."""

import os

import pytest
from scripts import load_tool

from pretrain.common.errors import UserError

NOTHING = ["--config-file", "nowhere.py"]
MISTAKES = {
    "analyze_model": NOTHING,
    "benchmark": ["detect", *NOTHING],
    "convert_checkpoint": ["nowhere.pth", "out.pth"],
    "export_model": [*NOTHING, "--weights", "nowhere.pth", "--output", "out.onnx"],
    "lazyconfig_train_net": NOTHING,
    "plot_training": ["nowhere", "--output", "out.png"],
    "predict": [*NOTHING, "--weights", "nowhere.pth", "--input", "nowhere.jpg", "--output", "out"],
    "label_study": ["clothing", "nowhere", "out"],
    "pretraining_study": ["nowhere", "out"],
    "visualize_data": [*NOTHING, "--output", "out"],
    "visualize_results": [
        "--results", "nowhere.json", "--annotations", "nowhere.json", "--images", "nowhere", "--output", "out",
    ],
}  # fmt: skip


@pytest.fixture(params=MISTAKES)
def command(request, monkeypatch, tmp_path):
    """Calls a tool's `main` on a mistake, with more flags before it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOW_TRACEBACK", "")
    tool, mistake = load_tool(request.param), MISTAKES[request.param]

    def run(*flags: str) -> None:
        first = 1 if request.param == "benchmark" else 0  # its options come behind the subcommand
        monkeypatch.setattr("sys.argv", [request.param, *mistake[:first], *flags, *mistake[first:]])
        tool.main()

    yield run
    os.environ.pop("SHOW_TRACEBACK", None)
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_one_line(command):
    with pytest.raises(SystemExit) as stopped:
        command()
    assert stopped.value.code.startswith("error: ") and "\n" not in stopped.value.code


def test_traceback_shows_where_it_was_noticed(command):
    with pytest.raises((UserError, OSError)):
        command("--traceback")
