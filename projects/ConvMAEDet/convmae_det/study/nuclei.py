"""AP over the number of labelled images and over epochs of pretraining, on microscopy images with instance masks.

Each image's contrast is stretched first, as tools for microscopy do: most of these images are nearly black, and
pretraining on them as they are learns to predict black. The tiny detector of the demo learns from tiles of 128 pixels,
cut from the images, of some labelled images. It starts from random weights, or from ConvMAE or FastConvMAE pretraining
on all training images without labels. Fine-tuning is the same for all, but each start has its own learning rate, from
the same three, chosen by AP on training images that were held back for it.
"""

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_api

from pretrain.common.errors import UserError
from pretrain.common.files import save_json
from pretrain.common.jobs import Job, run_jobs

__all__ = ["run_nuclei"]

TILE = 128  # pixels
MIN_AREA = 16  # pixels of an object that a tile keeps
CONTRAST = (1, 99.8)  # percentiles of an image that become black and white
CONFIG = "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"
ITERATIONS = 200
LABELS = (10, 25, 50, 200)  # images; each has four tiles
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
CHOSEN_ON = 50  # labelled images of the runs that choose the learning rate
HELD_BACK = 50  # training images that judge them
# About equal CPU time: an epoch of FastConvMAE has four masked views of each image.
EPOCHS = {"convmae": 80, "fastconvmae": 20}
SHORTER = (5, 20)  # epochs of ConvMAE for the curve over pretraining
# Crops of half a tile: with so few images, steps matter more than large crops.
PRETRAIN = ("--input_size", 64, "--batch_size", 16, "--lr", 2e-3, "--no-norm_pix_loss", "--num_workers", 0)
DETECTOR = (
    *("model.proposal_generator.anchor_generator.sizes=[[8,16,24]]", f"data.image_size={TILE}"),
    *("dataloader.train.total_batch_size=4", f"train.max_iter={ITERATIONS}", "train.eval_period=0"),
    *("train.checkpointer.period=100000", "train.writers=[json]"),
)


def run_nuclei(source: Path, output: Path, root: Path, processes: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Runs the study, or what is missing of it.

    Args:
        source: COCO-format set with `train`, `val` and `annotations/{train,val}.json`.
        output: folder of the study.
        root: of the project, where commands run.
        processes: runs at a time.
        seeds: of the reported runs; each draws its own labelled images.

    Returns:
        one dict a detector: `method`, `epochs` of pretraining, `labels`, `seed`, `lr`, AP values and CPU seconds.

    Raises:
        UserError: the data is no such set, or a command failed.
    """
    data = output / "data"
    names = cut_tiles(source, data)
    schedules = [*EPOCHS.items(), *(("convmae", epochs) for epochs in SHORTER)]
    pretraining = {key: _pretraining(*key, data / "train", output) for key in schedules}
    run_jobs(list(pretraining.values()), root, processes)
    starts: dict[tuple[str, int], Path | None] = {("random", 0): None}
    starts |= {key: job.folder / "encoder.pth" for key, job in pretraining.items()}
    main = [("random", 0), *EPOCHS.items()]

    random.Random(0).shuffle(names)
    _write_subset(data, "choose_train", names[HELD_BACK:][:CHOSEN_ON])
    _write_subset(data, "choose_val", names[:HELD_BACK])
    detector = partial(_detector, data, output)
    choices = [
        detector(f"choose_{method}_{lr:g}", start, lr, 0, ("choose_train", "choose_val"), method=method, epochs=epochs)
        for method, epochs in main
        for lr in LEARNING_RATES
        for start in [starts[method, epochs]]
    ]
    found = run_jobs(choices, root, processes)
    best = {method: max((r for r in found if r["method"] == method), key=lambda r: r["AP"])["lr"] for method, _ in main}

    jobs = []
    arms = [(method, epochs, labels) for method, epochs in main for labels in LABELS]
    arms += [("convmae", epochs, CHOSEN_ON) for epochs in SHORTER]
    for seed in seeds:
        order = list(names)
        random.Random(seed + 1).shuffle(order)
        for labels in LABELS:
            _write_subset(data, f"train_{labels}_{seed}", order[:labels])
        for method, epochs, labels in arms:
            name = f"{method}_{epochs}ep_{labels}labels_seed{seed}"
            facts = {"method": method, "epochs": epochs, "labels": labels}
            split = (f"train_{labels}_{seed}", "val")
            jobs.append(detector(name, starts[method, epochs], best[method], seed, split, **facts))
    return run_jobs(jobs, root, processes)


def _pretraining(method: str, epochs: int, images: Path, output: Path) -> Job:
    folder = output / f"pretrain_{method}_{epochs}ep"
    command = ("-m", "pretrain", "--model", f"{method}_convvit_tiny_patch8", "--data_path", images, *PRETRAIN)
    schedule = ("--epochs", epochs, "--warmup_epochs", epochs / 20, "--save_epochs", epochs, "--device", "cpu")
    facts = {"method": method, "epochs": epochs}
    return Job(folder, (*command, *schedule, "--output_dir", folder), _last_loss, facts)


def _last_loss(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {"train_loss": [line["train_loss"] for line in lines if "train_loss" in line][-1]}


def _detector(
    data: Path, output: Path, name: str, start: Path | None, lr: float, seed: int, splits: tuple[str, str], **facts: Any
) -> Job:
    folder = output / name
    overrides = [*DETECTOR, f"optimizer.lr={lr}", f"train.seed={seed}", f"train.output_dir={folder / 'run'}"]
    for key, split in zip(("train", "val"), splits, strict=True):
        images = data / ("val" if split == "val" else "train")
        overrides += [f"data.{key}_json={data / 'annotations' / split}.json", f"data.{key}_images={images}"]
    if start is not None:
        overrides.append(f"train.init_checkpoint={start}")
    command = ("tools/lazyconfig_train_net.py", "--num-gpus", 0, "--config-file", CONFIG, *overrides)
    return Job(folder, command, _last_ap, {**facts, "lr": lr, "seed": seed})


def _last_ap(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "run/metrics.json").read_text().splitlines()]
    last = [line for line in lines if "bbox/AP" in line][-1]
    for weights in (folder / "run").glob("*.pth"):  # hundreds of files of no further use
        weights.unlink()
    names = {"AP": "bbox/AP", "AP50": "bbox/AP50", "mask_AP": "segm/AP", "mask_AP50": "segm/AP50"}
    return {short: round(last[name], 2) for short, name in names.items()}


def cut_tiles(source: Path, folder: Path) -> list[str]:
    """Writes tiles of both splits, with the objects in them, unless they are there.

    Returns:
        names of the training images, each of which begins the names of its tiles.

    Raises:
        UserError: the source is no such data set.
    """
    files = {split: source / "annotations" / f"{split}.json" for split in ("train", "val")}
    for split, file in files.items():
        if not file.is_file() or not (source / split).is_dir():
            raise UserError(f"{source} has no {split} folder with annotations/{split}.json.")
        if not (folder / "annotations" / f"{split}.json").exists():
            _cut_split(json.loads(file.read_text()), source / split, folder, split)
    content = json.loads(files["train"].read_text())
    if len(content["images"]) < max(LABELS):
        raise UserError(f"{files['train']} lists {len(content['images'])} images; the study takes {max(LABELS)}.")
    return sorted(Path(image["file_name"]).stem for image in content["images"])


def _cut_split(content: dict, images: Path, folder: Path, split: str) -> None:
    for name in (split, "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    objects: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    tiles: dict[str, list] = {"images": [], "annotations": [], "categories": content["categories"]}
    for image in sorted(content["images"], key=lambda i: i["file_name"]):
        picture = stretch_contrast(_read(images / image["file_name"]))
        height, width = picture.shape[:2]
        masks = [(a, _mask(a["segmentation"], height, width)) for a in objects.get(image["id"], [])]
        for y in range(0, height - TILE + 1, TILE):
            for x in range(0, width - TILE + 1, TILE):
                place = (slice(y, y + TILE), slice(x, x + TILE))
                name = f"{Path(image['file_name']).stem}_{y}_{x}.png"
                if not cv2.imwrite(str(folder / split / name), picture[place]):
                    raise UserError(f"{folder / split / name} cannot be written; is the disk full?")
                tile = {"id": len(tiles["images"]) + 1, "file_name": name, "width": TILE, "height": TILE}
                tiles["images"].append(tile)
                for annotation, mask in masks:
                    if found := _object(np.asfortranarray(mask[place])):
                        ids = {"id": len(tiles["annotations"]) + 1, "image_id": tile["id"]}
                        category = {"category_id": annotation["category_id"], "iscrowd": 0}
                        tiles["annotations"].append(ids | category | found)
    save_json(tiles, folder / "annotations" / f"{split}.json")


def stretch_contrast(picture: np.ndarray) -> np.ndarray:
    """Brings the darkest and the brightest pixels of an image to black and white, its channels together.

    Args:
        picture: (H, W, 3), uint8.

    Returns:
        (H, W, 3), uint8.
    """
    low, high = np.percentile(picture, CONTRAST)
    return np.clip((picture - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    if picture is None:
        raise UserError(f"{path} cannot be read.")
    return picture


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):  # compressed already
        return mask_api.decode(segmentation)
    encoded = mask_api.frPyObjects(segmentation, height, width)
    return mask_api.decode(mask_api.merge(encoded) if isinstance(encoded, list) else encoded)


def _object(mask: np.ndarray) -> dict | None:
    """Polygons, box and area of what a tile shows of an object, None if that is next to nothing."""
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = [c.reshape(-1).astype(float).tolist() for c in contours if len(c) > 2 and cv2.contourArea(c) > 0]
    if mask.sum() < MIN_AREA or not polygons:
        return None
    box = mask_api.toBbox(mask_api.encode(mask)).tolist()
    return {"segmentation": polygons, "bbox": box, "area": int(mask.sum())}


def _write_subset(data: Path, name: str, images: Sequence[str]) -> None:
    """The annotations of the training tiles of some images."""
    content = json.loads((data / "annotations/train.json").read_text())
    chosen = set(images)
    content["images"] = [i for i in content["images"] if i["file_name"].rsplit("_", 2)[0] in chosen]
    ids = {i["id"] for i in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    save_json(content, data / "annotations" / f"{name}.json")
