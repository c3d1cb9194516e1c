"""Detection and instance segmentation: the task of every config that names no other."""

from collections.abc import Sequence

import numpy as np

from lazyrun.config.custom_data import DATA_OPTIONS, use_custom_data
from lazyrun.config.task import Task
from lazyrun.data.coco_check import check_datasets
from lazyrun.data.samples import Sample, count_objects
from lazyrun.export.compare import compare_detectors
from lazyrun.export.forms import detector_form
from lazyrun.inference.predictor import Predictor
from lazyrun.inference.writer import PredictionWriter
from lazyrun.planning.rcnn import rcnn_training_pass
from lazyrun.viz.instances import draw_instances

__all__ = ["detection"]


def detection() -> Task:
    """Boxes, and masks where the model has them, of COCO-format data sets."""
    return Task(
        name="detection",
        package="lazyrun",
        data_options=DATA_OPTIONS,
        use_custom_data=use_custom_data,
        check_datasets=check_datasets,
        predictor=Predictor,
        writer=PredictionWriter,
        draw_sample=_draw,
        describe_samples=_describe,
        onnx_form=detector_form,
        compare=compare_detectors,
        training_pass=rcnn_training_pass,
    )


def _draw(sample: Sample, names: Sequence[str]) -> np.ndarray:
    return sample.image if sample.instances is None else draw_instances(sample.image, sample.instances, names)


def _describe(samples: Sequence[Sample]) -> str:
    return f"{count_objects(samples)} objects"
