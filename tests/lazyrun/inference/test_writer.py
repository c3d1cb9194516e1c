"""Which files are predicted and what is written for them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances

from lazyrun.data.image_inputs import ImageInputs
from lazyrun.inference.inputs import find_images
from lazyrun.inference.journal import Journal
from lazyrun.inference.predictor import Predictor
from lazyrun.inference.writer import PredictionWriter, predict_images, predict_video
from pretrain.common.errors import UserError


class OneBox(Predictor):
    """Predicts one box with a mask in any image, without a model."""

    def __init__(self, batch_size: int = 2):
        self.batch_size = batch_size
        self.categories = [{"id": 7, "name": "coin"}]

    def __call__(self, images):
        outputs = []
        for image in images:
            mask = torch.zeros(1, *image.shape[:2], dtype=torch.bool)
            mask[:, 2:6, 1:9] = True
            fields = dict(pred_boxes=Boxes(torch.tensor([[1.0, 2.0, 9.0, 6.0]])), scores=torch.tensor([0.9]))
            outputs.append(
                Instances(image.shape[:2], **fields, pred_classes=torch.tensor([0]), pred_masks=mask)
            )  # fmt: skip
        return outputs


def picture(path: Path, size=(20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 100, np.uint8))
    return path


def write(output: Path, images: list[Path], **options) -> list[Path]:
    options = dict(score_threshold=0.5, crops=False, masks=False) | options
    writer = PredictionWriter(output, OneBox(), **options)
    unreadable = predict_images(writer, images, {image: i for i, image in enumerate(images, start=1)})
    writer.close()
    return unreadable


def test_inputs(tmp_path):
    a, b, c = (picture(tmp_path / name) for name in ("a/1.jpg", "a/sub/1.png", "b/1.jpg"))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    nowhere = tmp_path / "out"
    assert find_images([str(tmp_path / "a")], nowhere) == [a, b]
    assert find_images([str(tmp_path / "**/1.jpg"), str(a)], nowhere) == [a, c]
    assert find_images([str(tmp_path / "a")], tmp_path / "a" / "sub") == [a]
    assert find_images([str(tmp_path / "**/1.*")], tmp_path / "a" / "sub") == [a, c]
    (tmp_path / "empty").mkdir()
    for bad, message in (
        ("empty", "empty holds no images"),
        ("*.gif", r"Pattern .*\*\.gif matches no file"),
        ("no.jpg", r"no\.jpg does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            find_images([str(tmp_path / bad)], nowhere)


def test_everything_is_written_and_names_do_not_collide(tmp_path):
    images = [picture(tmp_path / name) for name in ("in/a/1.jpg", "in/b/1.jpg", "in/b/1.png", "in/b/1.bmp")]
    assert write(tmp_path / "out", images, crops=True, masks=True) == []
    overlays = {str(p.relative_to(tmp_path / "out/overlays")) for p in (tmp_path / "out/overlays").rglob("*.*")}
    assert overlays == {"a/1.jpg", "b/1.jpg", "b/1.png", "b/1.bmp.png"}
    crop = cv2.imread(str(tmp_path / "out/crops/b/1.png/000_coin_0.90.png"))
    mask = cv2.imread(str(tmp_path / "out/masks/b/1.png/000_coin_0.90.png"))
    assert crop.shape == (4, 8, 3) and mask.shape == (20, 30, 3) and (mask > 0).sum() == 4 * 8 * 3
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert results[2] | {"segmentation": None} == {
        "image_id": 3, "category_id": 7, "bbox": [1.0, 2.0, 8.0, 4.0], "score": results[2]["score"],
        "segmentation": None,
    }  # fmt: skip
    listed = json.loads((tmp_path / "out/images.json").read_text())
    assert listed["categories"] == [{"id": 7, "name": "coin"}]
    assert listed["images"][2] == {"id": 3, "file_name": str(images[2]), "width": 30, "height": 20}
    assert not [p for p in (tmp_path / "out").rglob("*") if ".tmp" in p.name]


def test_threshold_is_for_pictures(tmp_path):
    write(tmp_path / "out", [picture(tmp_path / "1.png")], score_threshold=0.95, crops=True)
    assert not (tmp_path / "out/crops").exists()
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())) == 1


def test_unreadable_images_are_named_and_skipped(tmp_path, caplog):
    good, bad = picture(tmp_path / "1.png"), tmp_path / "2.png"
    bad.write_text("no image")
    cut = tmp_path / "3.png"
    cut.write_bytes(good.read_bytes()[:60])
    assert write(tmp_path / "out", [bad, good, cut]) == [bad, cut]
    assert f"{bad} is skipped, it cannot be read as an image" in caplog.text
    assert [i["file_name"] for i in json.loads((tmp_path / "out/images.json").read_text())["images"]] == [str(good)]


def test_images_that_the_model_cannot_take_are_skipped(tmp_path, caplog, monkeypatch):
    one, line, two = picture(tmp_path / "1.png"), picture(tmp_path / "2.png", (1, 2000)), picture(tmp_path / "3.png")
    predict = OneBox.__call__

    def resizing(self, images):
        self.inputs = ImageInputs.__new__(ImageInputs)
        self.inputs.transform, self.inputs.format = T.AugmentationList([T.ResizeShortestEdge([64, 64], 64)]), "RGB"
        [self._model_input(image) for image in images]
        return predict(self, images)

    monkeypatch.setattr(OneBox, "__call__", resizing)
    assert write(tmp_path / "out", [one, line, two]) == [line]
    assert "2.png is skipped (2000x1 pixels cannot be brought to the size" in caplog.text
    listed = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [i["file_name"] for i in listed] == [str(one), str(two)]


def test_inputs_are_never_replaced(tmp_path):
    image = picture(tmp_path / "overlays" / "1.png")
    with pytest.raises(UserError, match=r"would replace .*; name another --output"):
        write(tmp_path, [image])
    video = write_video(tmp_path / "overlays" / "clip.mp4", frames=1)
    with pytest.raises(UserError, match=r"would replace .*; name another --output"):
        predict_video(PredictionWriter(tmp_path, OneBox(), score_threshold=0, crops=False, masks=False), video)


class Killed(OneBox):
    """Is killed in its second batch."""

    batches = 0

    def __call__(self, images):
        self.batches += 1
        if self.batches == 2:
            raise KeyboardInterrupt
        return super().__call__(images)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_killed_job_goes_on_and_shares_give_the_files_of_one_run(tmp_path):
    images = [picture(tmp_path / f"in/{i % 2}/{i}.png", size=(20 + i, 30)) for i in range(7)]
    ids = {image: i for i, image in enumerate(images, start=1)}
    options = dict(score_threshold=0.5, crops=True, masks=True)
    write(tmp_path / "whole", images, crops=True, masks=True)
    (tmp_path / "whole/.predictions-0.jsonl").unlink()

    killed = PredictionWriter(tmp_path / "killed", Killed(), **options)
    with pytest.raises(KeyboardInterrupt):
        predict_images(killed, images, ids)
    journal = Journal(tmp_path / "killed", {}, resume=True)
    assert journal.done() == {str(image) for image in images[:2]}
    again = PredictionWriter(tmp_path / "killed", OneBox(), **options, journal=journal)
    predict_images(again, images, ids, chosen=[image for image in images if str(image) not in journal.done()])
    again.close()
    journal.remove()
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "whole")

    journals = [Journal(tmp_path / "shared", {}, rank=rank) for rank in range(2)]
    for rank, journal in enumerate(journals):
        writer = PredictionWriter(tmp_path / "shared", OneBox(), **options, journal=journal)
        predict_images(writer, images, ids, chosen=images[rank::2])
    first = PredictionWriter(tmp_path / "shared", OneBox(), **options, journal=journals[0])
    journals[0].merge()
    first.close()
    journals[0].remove()
    assert files_in(tmp_path / "shared") == files_in(tmp_path / "whole")


def write_video(path: Path, frames: int) -> Path:
    encoder = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for i in range(frames):
        encoder.write(np.full((48, 64, 3), 40 * i, np.uint8))
    encoder.release()
    return path


@pytest.mark.parametrize("batch_size", [1, 2])
def test_video(tmp_path, batch_size):
    video = write_video(tmp_path / "clip.avi", frames=5)
    writer = PredictionWriter(tmp_path / "out", OneBox(batch_size), score_threshold=0, crops=False, masks=False)
    predict_video(writer, video)
    frames = [entry["frame"] for entry in writer.journal.entries()]
    assert [r["image_id"] for r in writer.journal.found()] == frames == list(range(5))
    capture = cv2.VideoCapture(str(tmp_path / "out/overlays/clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and capture.get(cv2.CAP_PROP_FPS) == 10
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be read as a video"):
        predict_video(writer, tmp_path / "text.mp4")


def test_an_image_too_large_for_the_memory_is_skipped(tmp_path):
    class Small(OneBox):
        def __call__(self, images):
            if any(image.shape[0] > 100 for image in images):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
            return super().__call__(images)

    images = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (200, 30)), picture(tmp_path / "c.png")]
    writer = PredictionWriter(tmp_path / "out", Small(), score_threshold=0.5, crops=False, masks=False)
    assert predict_images(writer, images, dict.fromkeys(images, 1)) == images[1:2]
    assert sorted(p.name for p in (tmp_path / "out/overlays").iterdir()) == ["a.png", "c.png"]
    writer.add = lambda *_: bytearray(1 << 60)
    assert predict_images(writer, images[:1], {images[0]: 1}) == images[:1]


@pytest.mark.parametrize("name", [r"$\frac$", "$", "ü" * 300, "a/" * 150])
def test_any_class_name_is_drawn_and_names_files(tmp_path, name):
    writer = PredictionWriter(tmp_path / "out", OneBox(), score_threshold=0.5, crops=True, masks=True)
    writer.names[7] = name
    image = picture(tmp_path / "a.png")
    assert predict_images(writer, [image], {image: 1}) == []
    (crop,) = (tmp_path / "out/crops/a.png").iterdir()
    assert crop.name.startswith("000_") and crop.name.endswith("_0.90.png")
