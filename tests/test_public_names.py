"""Names that users and old runs import stay where they were."""

import importlib

import pytest
import timm
from detectron2.utils.registry import locate

PUBLIC = {
    "pretrain.models": ["MaskedAutoencoderConvViT", "ConvViT", "build_model"],
    "convmae_det": ["ConvViT", "ConvViTFPN", "get_vit_lr_decay_rate", "Predictor"],
    "mimdet": ["MIMDetBackbone", "BenchmarkingViT", "ImageListRCNN", "get_mimdet_lr_scale"],
    "convmae_seg": ["ConvViTSeg", "FCNHead", "SegmentationPredictor", "Segmentor", "SlidingWindow", "UperHead"],
}

BEFORE_LAZYRUN = {
    "analysis": ["Evaluation", "ImageErrors", "evaluate", "find_errors", "read_annotations", "read_results"],
    "attention": ["RelPosAttention", "attention_function", "relative_positions"],
    "backbone": ["ConvViT", "init_linear"],
    "baselines": ["DenseConvViT", "dense_attention", "with_dense_backbone"],
    "categories": ["categories_of", "check_same_classes", "stored_categories"],
    "charts": ["class_ap_chart", "draw", "precision_recall_chart"],
    "checkpoint": ["RunCheckpointer", "load_weights"],
    "chunked_attention": ["chunked_attention"],
    "config": ["build_model", "default_train_options", "load_config", "read_config"],
    "curves": ["Curves", "plot_runs", "read_curves", "running_median"],
    "custom_data": ["DATA_OPTIONS", "set_class_count", "use_custom_data", "without_evaluation"],
    "data": ["FederatedLossWeights", "TrainingBatchSampler", "build_train_loader", "seeded"],
    "dataset_check": ["DatasetReport", "check_coco_json", "check_datasets", "read_coco_json", "upright_size"],
    "datasets": ["register_shapes"],
    "engine": ["compile_backbone", "evaluate", "run", "train"],
    "evaluation": ["COCOEvaluator", "complete"],
    "export": ["PixelPyramid", "export_backbone", "export_detector", "size_divisor"],
    "flops": ["attention_flops", "flop_analysis"],
    "folded_attention": ["folded_attention"],
    "fpn_backbone": ["ConvViTFPN"],
    "hooks": ["BestCheckpointer", "RecordMemory", "SaveOnSigterm", "SavedEvalHook", "SeedEachStep"],
    "images": ["decode_image", "read_image"],
    "launch": ["launch"],
    "lr_decay": ["get_vit_lr_decay_rate"],
    "mapper": ["InstanceMapper"],
    "norms": ["PlainSyncBatchNorm", "grid_batch_norm", "sync_batch_norm"],
    "optim": ["build_optimizer"],
    "prediction_files": [
        "PredictionWriter",
        "find_images",
        "is_video",
        "predict_images",
        "predict_video",
        "write_picture",
    ],
    "predictor": ["Predictor", "read_rgb"],
    "pyramid": ["FeaturePyramid"],
    "rcnn": ["PaddedRCNN"],
    "recipe": ["DERIVED_FROM_EPOCHS", "Recipe", "derive_recipe"],
    "report": ["write_report"],
    "samples": ["Sample", "class_names", "iterate_samples"],
    "schedule": [
        "COCO_TRAIN_IMAGES",
        "LVIS_TRAIN_IMAGES",
        "WarmupOverIterations",
        "cosine_schedule",
        "fit_schedule",
        "iterations",
        "linear_schedule",
        "multistep_schedule",
    ],
    "synthetic": ["synthetic_batch"],
    "table_attention": ["RelPosBiasTable", "TableAttention", "table_attention"],
    "task": ["DETECTION", "Task", "task_of"],
    "trainer": ["Trainer"],
    "tta": ["ScaleAndFlip", "TestTimeAugmentation", "with_tta"],
    "visualization": ["contact_sheet", "draw_annotations", "draw_comparison", "draw_instances", "group_by_image"],
    "writers": ["WandbWriter", "build_writers", "check_writers"],
}
"""Public names of the modules of convmae_det in version 0.1.0, before lazyrun took most of them over; what only the
tools used (the benchmark, the padding check) is left out."""


@pytest.mark.parametrize(("module", "names"), PUBLIC.items(), ids=PUBLIC)
def test_public_names(module, names):
    for name in names:
        assert callable(getattr(importlib.import_module(module), name))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module(module).no_such_name


def test_importing_pretrain_registers_the_classifiers_with_timm():
    importlib.import_module("pretrain")
    model = timm.create_model("convvit_tiny_patch16", num_classes=3)
    assert type(model) is importlib.import_module("pretrain.models").ConvViT


@pytest.mark.parametrize(("module", "names"), BEFORE_LAZYRUN.items(), ids=BEFORE_LAZYRUN)
def test_old_module_paths(module, names):
    path = f"convmae_det.{module}"
    for name in names:
        found = getattr(importlib.import_module(path), name)
        assert locate(f"{path}.{name}") is found


def test_a_name_that_never_was_is_an_import_error():
    importlib.import_module("convmae_det")
    with pytest.raises(ImportError):
        exec("from convmae_det.config import no_such_name", {})
    with pytest.raises(ImportError):
        importlib.import_module("convmae_det.no_such_module")
