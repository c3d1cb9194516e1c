"""The detection benchmark on the demo's detector, and the search for the largest batch."""

import json
import os
import subprocess
import sys

import pytest
from parity import REPO
from shapes import CONFIG, SMALL

OVERRIDES = [o for o in SMALL if o.startswith("model.")]


def benchmark(*arguments: str, overrides=OVERRIDES) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/benchmark.py", "detect", "--config-file", CONFIG, "--threads", "1", *arguments]
    path = os.pathsep.join([str(REPO), str(REPO / "projects/ConvMAEDet")])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    return subprocess.run([*command, "--", *overrides], cwd=REPO, env=environment, capture_output=True, text=True)


def test_reports_every_case(tmp_path):
    file = tmp_path / "results" / "out.json"
    result = benchmark("--sizes", "64", "--rounds", "1", "--act_checkpoint", "--json", str(file))
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())["rows"]
    assert len(result.stdout.split("|---")[-1].splitlines()) == 1 + len(rows)
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


def test_finds_the_largest_batch_within_a_limit():
    result = benchmark("--sizes", "64", "--parts", "backbone", "--find-batch", "--memory-limit", "0.02")
    assert result.returncode == 0, result.stderr
    published, ours = (int(result.stdout.split(name)[1].split(",")[0]) for name in ("as published ", "ours "))
    assert 0 < published < ours


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--find-batch", "--sizes", "64", "--parts", "backbone"], "--find-batch needs --memory-limit GB"),
        (["--sizes", "70"], "cannot be built for 70 pixels: Image size 70x70 is not divisible"),
        (["--rounds", "0"], "--rounds 0 measures nothing"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, message):
    result = benchmark(*arguments)
    assert result.returncode != 0 and message in result.stderr and "Traceback" not in result.stderr
