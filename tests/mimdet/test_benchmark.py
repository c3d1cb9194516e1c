"""The detection benchmark on a detector that samples tokens, and on one without a published form to compare with."""

import torch
from parity import REPO

from convmae_det.benchmark import published_and_ours
from lazyrun.benchmarks.detector import Case, measure, table
from lazyrun.benchmarks.models import build_detector
from lazyrun.config.loading import load_config
from mimdet.benchmark import at_sample_ratios

CONFIGS = REPO / "projects/MIMDet/configs"


def test_mimdet_is_measured_at_each_sample_ratio():
    cfg = load_config(str(CONFIGS / "shapes/mimdet_tiny.py"))
    model = build_detector(cfg, 64, torch.device("cpu"))
    rows = measure(model, Case("backbone", "train", 64, 1, act_checkpoint=True), 1, at_sample_ratios)
    saved = {row["variant"]: row["saved_bytes"] for row in rows}
    names = ["sample ratio 0.25", "sample ratio 0.5", "sample ratio 1"]
    assert list(saved) == [*names, *(f"{name}, checkpointed" for name in names)]
    assert saved[names[0]] < saved[names[1]] < saved[names[2]]
    assert all(saved[f"{name}, checkpointed"] < saved[name] for name in names)
    assert table(rows).count("\n") == 1 + len(rows)
    assert model.backbone.bottom_up.sample_ratio == 0.5


def test_a_feature_pyramid_network():
    cfg = load_config(str(CONFIGS / "COCO/convmae_base_mask_rcnn_FPN_25ep.py"))
    cfg.model.backbone.bottom_up.update(embed_dim=(8, 16, 24), depth=(1, 1, 1), num_heads=4, global_block_indexes=[0])
    model = build_detector(cfg, 64, torch.device("cpu"))
    rows = measure(model, Case("backbone", "train", 64, 1, act_checkpoint=True), 1, published_and_ours)
    assert [row["variant"] for row in rows] == ["ours", "ours, checkpointed"]
    assert rows[1]["saved_bytes"] < rows[0]["saved_bytes"]
