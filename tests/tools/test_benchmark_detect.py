"""The detection benchmark on the demo's detector, and the search for the largest batch."""

import json
import runpy

import pytest
import torch
from parity import REPO
from shapes import CONFIG, SMALL

from pretrain.common.measure import largest_batch

OVERRIDES = [o for o in SMALL if o.startswith("model.")]


@pytest.fixture
def benchmark(monkeypatch, capsys):
    """Runs `tools/benchmark.py detect` in this process and returns what it printed."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(REPO)

    def run(*arguments: str) -> str:
        command = ["benchmark.py", "detect", "--config-file", CONFIG, "--threads", "1", *arguments, "--", *OVERRIDES]
        monkeypatch.setattr("sys.argv", command)
        runpy.run_path("tools/benchmark.py", run_name="__main__")
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)


def test_reports_every_case(benchmark, tmp_path):
    file = tmp_path / "results" / "out.json"
    out = benchmark("--sizes", "64", "--rounds", "1", "--act_checkpoint", "--json", str(file))
    rows = json.loads(file.read_text())["rows"]
    assert len(out.split("|---")[-1].splitlines()) == 1 + len(rows)
    cases = {}
    for row in rows:
        cases.setdefault((row["part"], row["mode"]), {})[row["variant"]] = row
    assert cases.keys() == {(part, mode) for part in ("backbone", "model") for mode in ("train", "inference")}
    for (part, mode), variants in cases.items():
        assert all(row["seconds"] > 0 for row in variants.values())
        if part == "model":
            for row in variants.values():
                assert all(seconds > 0 for seconds in row["components"].values())
                assert sum(row["components"].values()) < 10 * row["seconds"]
        if mode == "train":
            saved = [variants[name]["saved_bytes"] for name in ("as published", "ours", "ours, checkpointed")]
            assert saved[0] > saved[1] > saved[2] > 0
        else:
            assert variants.keys() == {"as published", "ours"}


def test_finds_the_largest_batch_within_a_limit(benchmark):
    out = benchmark("--sizes", "64", "--parts", "backbone", "--find-batch", "--memory-limit", "0.02")
    published, ours = (int(out.split(name)[1].split(",")[0]) for name in ("as published ", "ours "))
    assert 0 < published < ours


@pytest.mark.parametrize("largest", [0, 1, 2, 5, 16, 31, 40])
def test_largest_batch(largest):
    tried = []

    def fits(n: int) -> bool:
        tried.append(n)
        return n <= largest

    assert largest_batch(fits, most=31) == min(largest, 31)
    assert len(tried) == len(set(tried)) and max(tried) <= 31


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--find-batch", "--sizes", "64", "--parts", "backbone"], "--find-batch needs --memory-limit GB"),
        (["--sizes", "70"], "cannot be built for 70 pixels: Image size 70x70 is not divisible"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--memory-limit", "3"], "--memory-limit 3 is of --find-batch"),
        (["--find-batch", "--memory-limit", "-3"], "--memory-limit -3 is of --find-batch, and must be above 0"),
    ],
)
def test_mistakes_are_told_in_a_sentence(benchmark, arguments, message):
    with pytest.raises(SystemExit, match=message):
        benchmark(*arguments)
