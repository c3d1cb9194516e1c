#!/usr/bin/env python3
"""The whole story on a CPU in a few minutes: draw a data set, pretrain a tiny ConvMAE on its images without labels,
convert it, fine-tune the detector from it, evaluate, draw pictures.

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
MARKER = ".convmae-demo"
EPOCHS, IMAGES = 26, 2000
# Box AP and AP50 of the detector from random weights, on the same images and schedule: `--epochs 0 --seed S`, means of
# the seeds 0, 1 and 2 on two x86 cores. DETECTION.md has the single runs.
WITHOUT_PRETRAINING = {"bbox/AP": 0.0, "bbox/AP50": 0.0}


def empty_folder(path: Path) -> Path:
    """Creates the folder; replaces it only if it is empty or was made by an earlier demo."""
    path = path.resolve()
    if path.exists() and any(path.iterdir()) and not (path / MARKER).exists():
        sys.exit(f"error: {path} holds files that are not of a demo; name another folder with --output.")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / MARKER).touch()
    return path


def step(title: str, *command: object) -> None:
    """Runs one of the project's scripts from its root, with this Python; ends the demo if it fails."""
    words = [str(word) for word in command]
    print(f"\n=== {title}\n$ python {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"demo: the step '{title}' failed with exit code {code}; its output is above.")


def pretrain(images: Path, output: Path, epochs: int, processes: int, seed: int) -> None:
    """Pretrains the detector's trunk on unlabelled images, draws what it reconstructs, and converts it."""
    step(
        "Pretrain on the images alone",
        "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "pretrain", "--model", "convmae_convvit_tiny_patch8", "--input_size", 64, "--data_path", images,
        "--output_dir", output, "--device", "cpu", "--num_workers", 0, "--batch_size", 16 // processes,
        "--epochs", epochs, "--warmup_epochs", 1, "--lr", 2e-3, "--no-norm_pix_loss", "--seed", seed,
        "--save_epochs", 10, "--keep_checkpoints", 1,
    )  # fmt: skip
    checkpoint = max(output.glob("checkpoint-*.pth"))
    step(
        "Draw reconstructions",
        "-m", "pretrain.visualize", "--checkpoint", checkpoint, "--images", images,
        "--output", output / "reconstruction.png",
    )  # fmt: skip
    step(
        "Convert for the detector",
        "tools/convert_checkpoint.py", checkpoint, output / "detection.pth", "--config", CONFIG,
    )  # fmt: skip


def last_metrics(path: Path) -> dict:
    """The last evaluation in a metrics.json, which has one JSON object a line."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return next(line for line in reversed(lines) if "bbox/AP50" in line)


def comparison(metrics: dict, epochs: int, images: int, overridden: bool) -> str:
    """The result beside that of random weights; nothing where the schedule is not the one they were measured with."""
    if epochs != EPOCHS or images != IMAGES or overridden:
        return ""
    here, random = ((m["bbox/AP"], m["bbox/AP50"]) for m in (metrics, WITHOUT_PRETRAINING))
    return (
        f"with pretraining:    box AP {here[0]:.1f}, AP50 {here[1]:.1f}\n"
        f"without pretraining: box AP {random[0]:.1f}, AP50 {random[1]:.1f} "
        "(mean of three runs, measured before; to run it: --epochs 0)\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("output/demo"), help="folder to replace (default: %(default)s)"
    )
    parser.add_argument("--train-images", type=int, default=IMAGES, help="images to train on (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help="of pretraining; 0 leaves it out (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of pretraining and detector (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the detector's config")
    args = parser.parse_args()
    start = time.monotonic()
    # Deprecations inside PyTorch and detectron2 that no reader of the demo can do anything about.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore:pkg_resources is deprecated:UserWarning")
    output = empty_folder(args.output)
    (output / "datasets").mkdir()
    shapes, pretraining, detector, report = (
        output / name for name in ("datasets/shapes", "pretrain", "detector", "report")
    )
    os.environ["DETECTRON2_DATASETS"] = str(output / "datasets")

    step(
        "Draw a COCO-format data set",
        "datasets/make_shapes.py", shapes, "--size", 64, "--train", args.train_images, "--val", 150,
    )  # fmt: skip
    # Small tensors gain nothing from threads: two training processes of one thread each use two cores better.
    processes = min(2, os.cpu_count() or 1)
    os.environ["OMP_NUM_THREADS"] = "1"
    initial = []
    if args.epochs:
        pretrain(shapes / "train", pretraining, args.epochs, processes, args.seed)
        initial = [f"train.init_checkpoint={pretraining / 'detection.pth'}"]
    step(
        "Fine-tune and evaluate the detector" if initial else "Train and evaluate the detector",
        "tools/lazyconfig_train_net.py", "--num-gpus", processes, "--dist-url", "auto", "--config-file", CONFIG,
        f"train.output_dir={detector}", f"train.seed={args.seed}", *initial, *args.opts,
    )  # fmt: skip
    step(
        "Report on unseen images",
        "tools/visualize_results.py",
        "--results", detector / "inference" / "coco_instances_results.json",
        "--annotations", shapes / "annotations" / "instances_val.json",
        "--images", shapes / "val",
        "--output", report,
        "--title", "Demo: shapes",
    )  # fmt: skip

    step("Plot the training", "tools/plot_training.py", detector, "--output", report / "training.png", "--smooth", 5)

    metrics = last_metrics(detector / "metrics.json")
    print(
        f"\n=== Summary\n"
        f"checkpoint  {detector / 'model_final.pth'} (best: model_best.pth)\n"
        f"metrics     {detector / 'metrics.json'}, TensorBoard: tensorboard --logdir {output}\n"
        f"config      {detector / 'config.yaml'}\n"
        f"report      {report / 'report.html'}: AP, curves, and the worst images, ground truth beside predictions\n"
        f"training    {report / 'training.png'}\n"
        + (f"pretraining {pretraining / 'reconstruction.png'}: masked images reconstructed\n" if initial else "")
        + comparison(metrics, args.epochs, args.train_images, bool(args.opts))
        + f"demo: box_AP50={metrics['bbox/AP50']:.1f} mask_AP50={metrics['segm/AP50']:.1f} "
        f"minutes={(time.monotonic() - start) / 60:.1f}"
    )


if __name__ == "__main__":
    main()
