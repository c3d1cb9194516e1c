"""Exported classifiers give the probabilities of the eager ones, for images of any size."""

from functools import partial

import pytest
import torch
from smaller_files import check_smaller_files, save_pictures
from tiny_models import pictures

from convmae_det.classifier_export import compare_classifier, export_classifier
from pretrain.common.errors import UserError
from pretrain.models import build_model


def test_same_probabilities(tmp_path, address_of):
    pytest.importorskip("onnxscript")
    args = {"model": "convvit_tiny_patch16", "input_size": [64, 64], "patch_size": [4, 2, 2], "in_chans": 3}
    args |= {"global_pool": True, "drop_path": 0.1}
    torch.manual_seed(0)
    model = build_model("convvit_tiny_patch16", img_size=64, num_classes=3)
    for parameter in model.parameters():
        parameter.data *= 4
    weights = tmp_path / "classifier.pth"
    torch.save({"model": model.state_dict(), "args": args, "classes": ["a", "b", "c"]}, weights)
    metadata = export_classifier(address_of(weights), tmp_path / "classifier.onnx")
    assert [c["name"] for c in metadata.categories] == ["a", "b", "c"] and metadata.resizing[0]["short_edge"] == 73
    result = compare_classifier(str(weights), tmp_path / "classifier.onnx", pictures())
    assert result.images == result.same == 3 and result.holds
    export = partial(export_classifier, str(weights))
    for way, smaller in check_smaller_files(tmp_path / "classifier.onnx", save_pictures(tmp_path), export):
        result = compare_classifier(str(weights), smaller, pictures())
        assert result.same == 3 and result.worst < {"fp16": 0.01}.get(way, 0.1), (way, result)

    torch.save({"model": model.state_dict()}, tmp_path / "bare.pth")
    with pytest.raises(UserError, match="does not tell its model and classes"):
        export_classifier(str(tmp_path / "bare.pth"), tmp_path / "other.onnx")


def test_video_is_refused(tmp_path):
    weights = tmp_path / "classifier.pth"
    args = {"model": "videoconvvit_tiny_patch16", "input_size": [64, 64], "in_chans": 3, "num_frames": 16}
    torch.save({"model": {}, "args": args, "classes": ["a", "b"]}, weights)
    with pytest.raises(UserError, match="classifies video; only classifiers of images can be exported"):
        export_classifier(str(weights), tmp_path / "classifier.onnx")
