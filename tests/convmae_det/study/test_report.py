"""Tables and the picture show means and ranges of what was measured."""

import json

from PIL import Image

from convmae_det.study.report import clothing_table, nuclei_table, plot_nuclei, save_results, targets_table


def detector(method: str, epochs: int, labels: int, seed: int, ap: float) -> dict:
    return {"method": method, "epochs": epochs, "labels": labels, "seed": seed, "AP": ap, "command": ["python"]}


ROWS = [
    *(detector("random", 0, labels, seed, 10 + labels + seed) for labels in (10, 50) for seed in (0, 1)),
    *(detector("convmae", 80, labels, seed, 20 + labels + seed) for labels in (10, 50) for seed in (0, 1)),
    *(detector("convmae", 5, 50, seed, 62 + seed) for seed in (0, 1)),
]


def test_nuclei_table():
    assert nuclei_table(ROWS).splitlines() == [
        "| labelled images | random weights | ConvMAE, 80 epochs |",
        "| --- | --- | --- |",
        "| 10 | 20.5 (20.0 to 21.0) | 30.5 (30.0 to 31.0) |",
        "| 50 | 60.5 (60.0 to 61.0) | 70.5 (70.0 to 71.0) |",
        "",
        "| epochs of ConvMAE | labelled images | box AP |",
        "| --- | --- | --- |",
        "| 0 | 50 | 60.5 (60.0 to 61.0) |",
        "| 5 | 50 | 62.5 (62.0 to 63.0) |",
        "| 80 | 50 | 70.5 (70.0 to 71.0) |",
    ]


def test_clothing_table():
    rows = [
        {"method": "random", "measure": "knn", "fraction": 1.0, "acc1": 30.0},
        {"method": "convmae", "measure": "knn", "fraction": 1.0, "acc1": 40.0},
        {"method": "convmae", "measure": "finetune", "fraction": 0.01, "acc1": 20.0},
        {"method": "convmae", "measure": "finetune", "fraction": 0.01, "acc1": 25.0},
    ]
    assert clothing_table(rows).splitlines()[2:] == [
        "| nearest neighbours | 30.0 | 40.0 |",
        "| linear probe | - | - |",
        "| fine-tuning, 1% of the labels | - | 22.5 (20.0 to 25.0) |",
    ]


def test_targets_table():
    rows = [
        {"method": method, "measure": measure, "fraction": 1.0, "acc1": 30.0 + seed, "pretraining_seconds": 9 + seed}
        for method in ("rgb", "mimic")
        for measure in ("knn", "linprobe")
        for seed in (0, 2)
    ]
    assert targets_table(rows).splitlines() == [
        "|  | pixels | pixels, mimicking a teacher |",
        "| --- | --- | --- |",
        "| nearest neighbours | 31.0 (30.0 to 32.0) | 31.0 (30.0 to 32.0) |",
        "| linear probe | 31.0 (30.0 to 32.0) | 31.0 (30.0 to 32.0) |",
        "| pretraining, CPU seconds | 10.0 (9.0 to 11.0) | 10.0 (9.0 to 11.0) |",
    ]


def test_files(tmp_path):
    plot_nuclei(ROWS, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size == (1170, 468)
    save_results(ROWS, tmp_path / "results.json", ["tools/label_study.py"])
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["results"]) == len(ROWS) and "command" not in content["results"][0]
