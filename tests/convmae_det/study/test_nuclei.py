"""Tiles hold what the images show, and every arm gets its own labels, weights and learning rate."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from convmae_det.study import nuclei
from pretrain.common.errors import UserError


@pytest.fixture
def source(tmp_path):
    """Two images of 256x256 a split, with one square each that lies in all four tiles, and a disc in the first."""
    folder = tmp_path / "nuclei"
    (folder / "annotations").mkdir(parents=True)
    square = [[100.0, 90.0, 160.0, 90.0, 160.0, 150.0, 100.0, 150.0]]
    for split in ("train", "val"):
        (folder / split).mkdir()
        images, annotations = [], []
        for i in (1, 2):
            picture = np.full((256, 256, 3), i * 20, np.uint8)
            picture[:, 128:] += 10
            cv2.imwrite(str(folder / split / f"{i}.png"), picture)
            images.append({"id": i, "file_name": f"{i}.png", "width": 256, "height": 256})
            annotations.append({"id": i, "image_id": i, "category_id": 1, "segmentation": square, "iscrowd": 0})
        disc = np.zeros((256, 256), np.uint8)
        cv2.circle(disc, (40, 40), 10, 1, cv2.FILLED)
        counts = mask_api.encode(np.asfortranarray(disc))
        run_lengths = {"size": counts["size"], "counts": counts["counts"].decode()}
        annotations.append({"id": 3, "image_id": 1, "category_id": 1, "segmentation": run_lengths, "iscrowd": 0})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


def test_tiles(source, tmp_path, monkeypatch):
    monkeypatch.setattr(nuclei, "LABELS", (1, 2))
    assert nuclei.cut_tiles(source, tmp_path / "data") == ["1", "2"]
    content = json.loads((tmp_path / "data/annotations/val.json").read_text())
    assert [i["file_name"] for i in content["images"][:4]] == [
        "1_0_0.png",
        "1_0_128.png",
        "1_128_0.png",
        "1_128_128.png",
    ]
    # the dark half of the image is black now, the other white
    assert [cv2.imread(str(tmp_path / f"data/val/2_128_{x}.png")).mean() for x in (0, 128)] == [0, 255]
    first = [a for a in content["annotations"] if a["image_id"] == 1]
    assert [a["bbox"] for a in first] == [[100, 90, 28, 38], [30, 30, 21, 21]]
    areas = [sum(a["area"] for a in content["annotations"] if a["image_id"] in tiles) for tiles in ((1, 2, 3, 4),)]
    disc = 317  # pixels of OpenCV's disc of radius 10
    assert areas == [60 * 60 + disc]
    nuclei._write_subset(tmp_path / "data", "few", ["2"])
    few = json.loads((tmp_path / "data/annotations/few.json").read_text())
    assert len(few["images"]) == 4 and {a["image_id"] for a in few["annotations"]} == {i["id"] for i in few["images"]}


def test_contrast_of_an_image():
    picture = np.linspace(10, 30, 3 * 500 * 500).reshape(500, 500, 3)
    stretched = nuclei.stretch_contrast(picture)
    assert (stretched.min(), stretched.max()) == (0, 255)
    low, high = 10.2, 29.96  # the percentiles 1 and 99.8
    assert np.abs(stretched - np.clip((picture - low) / (high - low), 0, 1) * 255).max() <= 1
    assert not nuclei.stretch_contrast(np.full((8, 8, 3), 7, np.uint8)).any()


def test_other_data_is_refused(source, tmp_path):
    with pytest.raises(UserError, match="lists 2 images; the study takes 200"):
        nuclei.cut_tiles(source, tmp_path / "data")
    with pytest.raises(UserError, match="has no train folder"):
        nuclei.cut_tiles(tmp_path, tmp_path / "data")


def test_arms(source, tmp_path, monkeypatch):
    """Every start is fine-tuned alike, at the learning rate that was best for it on images held back."""
    monkeypatch.setattr(nuclei, "LABELS", (1, 2))
    monkeypatch.setattr(nuclei, "CHOSEN_ON", 1)
    monkeypatch.setattr(nuclei, "HELD_BACK", 1)
    best = {"random": 5e-4, "convmae": 1e-3, "fastconvmae": 2e-3}
    seen = []

    def run_jobs(jobs, root, processes):
        seen.append(jobs)
        return [{**j.facts, "AP": 10.0 * (j.facts.get("lr") == best[j.facts["method"]])} for j in jobs]

    monkeypatch.setattr(nuclei, "run_jobs", run_jobs)
    rows = nuclei.run_nuclei(source, tmp_path / "out", tmp_path, 1, (0, 1))
    pretraining, choices, runs = seen
    assert len(pretraining) == 4 and len(choices) == 9 and len(rows) == len(runs) == 2 * (3 * 2 + 2)
    assert {r["lr"] for r in rows if r["method"] == "convmae"} == {1e-3}
    assert {r["lr"] for r in rows if r["method"] == "random"} == {5e-4}
    for job in choices:  # what is reported is not looked at
        assert not any("data/annotations/val.json" in str(word) for word in job.command)
    for job in runs:
        words = [str(word) for word in job.command]
        started = [w for w in words if w.startswith("train.init_checkpoint=")]
        folder = f"pretrain_{job.facts['method']}_{job.facts['epochs']}ep/encoder.pth"
        assert started == [] if job.facts["method"] == "random" else folder in started[0]
        assert any(w.endswith(f"train_{job.facts['labels']}_{job.facts['seed']}.json") for w in words)
    common = [[w for w in map(str, j.command) if "lr=" not in w and "out" not in w] for j in runs]
    assert len({tuple(w for w in c if not w.startswith("train.seed")) for c in common}) == 1
