#!/usr/bin/env python3
"""The whole story on a CPU in a few minutes: draw a data set, train the tiny detector on it, evaluate, draw pictures.

Every step is a command of the project, printed before it runs. All files go to one folder, which is replaced.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "projects/ConvMAEDet/configs/shapes/mask_rcnn_vitdet_convmae_tiny.py"
PICTURES = 8


def step(title: str, *command: object) -> None:
    """Runs one of the project's scripts from its root, with this Python; ends the demo if it fails."""
    words = [str(word) for word in command]
    print(f"\n=== {title}\n$ python {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"demo: the step '{title}' failed with exit code {code}; its output is above.")


def last_metrics(path: Path) -> dict:
    """The last evaluation in a metrics.json, which has one JSON object a line."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return next(line for line in reversed(lines) if "bbox/AP50" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("output/demo"), help="folder to replace (default: %(default)s)"
    )
    parser.add_argument("--train-images", type=int, default=1500, help="images to train on (default: %(default)s)")
    parser.add_argument(
        "opts", nargs="*", metavar="key=value", help="overrides of the config, such as train.max_iter=100"
    )
    args = parser.parse_args()
    start = time.monotonic()
    output = args.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    data, run = output / "datasets", output / "detector"
    os.environ["DETECTRON2_DATASETS"] = str(data)

    data.mkdir()
    step(
        "Draw a COCO-format data set",
        "datasets/make_shapes.py",
        data / "shapes",
        "--train",
        args.train_images,
        "--val",
        150,
    )
    step(
        "Train and evaluate the detector",
        "tools/lazyconfig_train_net.py",
        "--num-gpus", 0,
        "--config-file", CONFIG,
        f"train.output_dir={run}",
        *args.opts,
    )  # fmt: skip
    step(
        "Draw predictions on unseen images",
        "tools/visualize_results.py",
        "--results", run / "inference" / "coco_instances_results.json",
        "--annotations", data / "shapes" / "annotations" / "instances_val.json",
        "--images", data / "shapes" / "val",
        "--output", output / "pictures",
        "--count", PICTURES,
    )  # fmt: skip

    metrics = last_metrics(run / "metrics.json")
    print(
        f"\n=== Summary\n"
        f"checkpoint  {run / 'model_final.pth'} (best: model_best.pth)\n"
        f"metrics     {run / 'metrics.json'}, TensorBoard: tensorboard --logdir {run}\n"
        f"config      {run / 'config.yaml'}\n"
        f"pictures    {output / 'pictures'}: {PICTURES} unseen images, ground truth beside predictions\n"
        f"demo: box_AP50={metrics['bbox/AP50']:.1f} mask_AP50={metrics['segm/AP50']:.1f} "
        f"minutes={(time.monotonic() - start) / 60:.1f}"
    )


if __name__ == "__main__":
    main()
