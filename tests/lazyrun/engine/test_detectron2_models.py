"""detectron2's own LazyConfig models train, resume, are evaluated and predict, without any model of this house."""

import json
import subprocess
import sys

import pytest
from custom import write_custom
from scripts import run_tool

CONFIG = """
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet

cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, optimizer, lr_multiplier, train = (
    cfg[key] for key in ("model", "dataloader", "optimizer", "lr_multiplier", "train")
)


# The blocks of a ResNet-50, a sixteenth as wide.
model.backbone.bottom_up.stages, before = [], 64
for blocks, width, stride in ((3, 16, 1), (4, 32, 2), (6, 64, 2), (3, 128, 2)):
    stage = L(ResNet.make_stage)(
        block_class=BottleneckBlock, num_blocks=blocks, stride_per_block=[stride, *[1] * (blocks - 1)],
        in_channels=before, out_channels=width, bottleneck_channels=width // 4, norm="BN",
    )
    model.backbone.bottom_up.stages.append(stage)
    before = width
model.backbone.out_channels = 16
model.proposal_generator.head.in_channels = 16
model.roi_heads.box_head.fc_dims = [32]
model.roi_heads.box_head.input_shape.channels = 16
model.roi_heads.box_predictor.input_shape.channels = 32
model.roi_heads.mask_head.conv_dims = [16]
model.roi_heads.mask_head.input_shape.channels = 16
model.roi_heads.batch_size_per_image = 8
for augmentations in (dataloader.train.mapper.augmentations, dataloader.test.mapper.augmentations):
    augmentations[0].update(short_edge_length=64, max_size=64)
dataloader.train.update(total_batch_size=2, num_workers=0)
dataloader.test.num_workers = 0
train.update(device="cpu", init_checkpoint="", max_iter=2, eval_period=0, log_period=1)
train.checkpointer.update(period=2, max_to_keep=2)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mask_rcnn_r50_fpn_thin.py"
    path.write_text(CONFIG)
    return path


def test_trains_goes_on_evaluates_and_predicts(config, shapes, tmp_path):
    output = tmp_path / "run"
    overrides = [*write_custom(shapes, tmp_path), f"train.output_dir={output}"]

    def command(*options: object):
        run = run_tool("lazyconfig_train_net", "--num-gpus", "0", *options)
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert "iterations     2 = 0.5 epochs of 4.0" in command("--config-file", config, *overrides)
    command("--config-file", config, "--resume", *overrides, "train.max_iter=3")
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1, 2]
    weights = output / "model_final.pth"
    evaluated = command("--config-file", output / "config.yaml", "--eval-only", f"train.init_checkpoint={weights}")
    assert "Task: segm" in evaluated
    images = shapes / "shapes/val"
    run = run_tool("predict", "--config-file", output / "config.yaml", "--weights", weights, "--device", "cpu",
                   "--input", images, "--output", tmp_path / "predicted")  # fmt: skip
    assert run.returncode == 0, run.stderr
    content = json.loads((tmp_path / "predicted/images.json").read_text())
    assert len(content["images"]) == 4 and [c["id"] for c in content["categories"]] == [7, 21, 90]


def test_lazyrun_stands_alone():
    """Imported without any project beside it."""
    code = (
        "import sys\n"
        "for name in ('convmae_det', 'mimdet', 'convmae_seg'): sys.modules[name] = None\n"
        "import lazyrun.engine.run, lazyrun.detection, lazyrun.viz.report, lazyrun.inference.export\n"
        "import lazyrun.benchmarks.detector"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
