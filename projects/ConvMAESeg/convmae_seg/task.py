"""What `tools/` need to know of segmentation; configs name it as their `task`."""

from convmae_det.task import Task
from convmae_seg.custom_data import use_custom_data
from convmae_seg.dataset_check import check_datasets
from convmae_seg.prediction_files import LabelMapWriter
from convmae_seg.predictor import SegmentationPredictor

__all__ = ["segmentation"]


def segmentation() -> Task:
    """Semantic segmentation: label maps in, class maps out."""
    return Task(
        package="convmae_seg",
        use_custom_data=use_custom_data,
        check_datasets=check_datasets,
        predictor=SegmentationPredictor,
        writer=LabelMapWriter,
    )
