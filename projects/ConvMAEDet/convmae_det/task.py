"""What a kind of model needs around it, so that one set of tools serves detectors and other models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import instantiate
from omegaconf import DictConfig

from convmae_det.custom_data import use_custom_data
from convmae_det.dataset_check import check_datasets
from convmae_det.prediction_files import PredictionWriter
from convmae_det.predictor import Predictor
from convmae_det.samples import Sample, count_objects
from convmae_det.visualization import draw_instances

__all__ = ["DETECTION", "Task", "task_of"]


@dataclass(frozen=True)
class Task:
    """One kind of model. A config names it by the function that gives it, `task = L(function)()`.

    Attributes:
        package: whose log messages a run shows, besides those of `convmae_det` and `pretrain`.
        use_custom_data: as :func:`convmae_det.custom_data.use_custom_data`; its options are in the config's `data`.
        check_datasets: as :func:`convmae_det.dataset_check.check_datasets`.
        predictor: class for predictions in Python, as :class:`convmae_det.predictor.Predictor`.
        writer: class for predictions in files, as :class:`convmae_det.prediction_files.PredictionWriter`.
        draw_sample: picture RGB uint8 of a training sample, given the names of the classes.
        describe_samples: what is in some samples, in two words.
    """

    package: str
    use_custom_data: Callable[..., None]
    check_datasets: Callable[..., list]
    predictor: type[Predictor]
    writer: type[PredictionWriter]
    draw_sample: Callable[[Sample, Sequence[str]], np.ndarray]
    describe_samples: Callable[[Sequence[Sample]], str]


def _draw(sample: Sample, names: Sequence[str]) -> np.ndarray:
    return sample.image if sample.instances is None else draw_instances(sample.image, sample.instances, names)


DETECTION = Task(
    package="convmae_det",
    use_custom_data=use_custom_data,
    check_datasets=check_datasets,
    predictor=Predictor,
    writer=PredictionWriter,
    draw_sample=_draw,
    describe_samples=lambda samples: f"{count_objects(samples)} objects",
)


def task_of(cfg: DictConfig) -> Task:
    """What a config's models do: detection, unless it says otherwise."""
    return DETECTION if cfg.get("task") is None else instantiate(cfg.task)
