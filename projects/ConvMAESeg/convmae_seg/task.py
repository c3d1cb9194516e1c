"""What `tools/` need to know of segmentation; configs name it as their `task`."""

from collections.abc import Sequence

import numpy as np

from convmae_seg.colors import class_colors
from convmae_seg.custom_data import DATA_OPTIONS, use_custom_data
from convmae_seg.export import compare_class_maps, window_form
from convmae_seg.label_map_check import check_datasets
from convmae_seg.label_maps import IGNORED
from convmae_seg.planning import segmentor_training_pass
from convmae_seg.prediction_files import LabelMapWriter
from convmae_seg.predictor import SegmentationPredictor
from convmae_seg.visualization import draw_class_map
from lazyrun.config.task import Task
from lazyrun.data.samples import Sample

__all__ = ["segmentation"]


def segmentation() -> Task:
    """Semantic segmentation: label maps in, class maps out."""
    return Task(
        name="segmentation",
        package="convmae_seg",
        data_options=DATA_OPTIONS,
        use_custom_data=use_custom_data,
        check_datasets=check_datasets,
        predictor=SegmentationPredictor,
        writer=LabelMapWriter,
        draw_sample=_draw,
        describe_samples=_describe,
        onnx_form=window_form,
        compare=compare_class_maps,
        training_pass=segmentor_training_pass,
    )


def _draw(sample: Sample, names: Sequence[str]) -> np.ndarray:
    assert sample.sem_seg is not None, "the mapper of segmentation gives label maps"
    return draw_class_map(sample.image, sample.sem_seg, names, class_colors(len(names)))


def _describe(samples: Sequence[Sample]) -> str:
    maps = [sample.sem_seg for sample in samples if sample.sem_seg is not None]
    present = {label for classes in maps for label in np.unique(classes).tolist()} - {IGNORED}
    return f"{len(present)} classes"
