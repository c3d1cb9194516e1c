"""What a kind of model needs around it, so that one set of tools serves detectors and other models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import instantiate
from omegaconf import DictConfig

from lazyrun.data.samples import Sample
from pretrain.common.errors import UserError

__all__ = ["DETECTION", "Task", "task_of"]

DETECTION = "lazyrun.detection.detection"
"""The task of a config that names none."""


@dataclass(frozen=True)
class Task:
    """One kind of model. A config names it by the function that gives it, `task = L(function)()`.

    Attributes:
        name: what it is called in messages, such as "detection".
        package: whose log messages a run shows, besides those of `lazyrun` and `pretrain`.
        data_options: keys of the config's `data` node that :attr:`use_custom_data` reads.
        use_custom_data: as :func:`lazyrun.config.custom_data.use_custom_data`.
        check_datasets: as :func:`lazyrun.data.coco_check.check_datasets`.
        predictor: class for predictions in Python, as :class:`lazyrun.inference.predictor.Predictor`.
        writer: class for predictions in files, as :class:`lazyrun.inference.writer.PredictionWriter`.
        draw_sample: picture RGB uint8 of a training sample, given the names of the classes.
        describe_samples: a short summary of some samples, such as "12 objects".
        onnx_form: a predictor's model as one ONNX graph, as :func:`lazyrun.export.forms.detector_form`.
        training_pass: the forward pass of a training step on made-up images, as
            :func:`lazyrun.planning.rcnn.rcnn_training_pass`.
        compare: a predictor and its exported file on images, as :func:`lazyrun.export.compare.compare_detectors`.
    """

    name: str
    package: str
    data_options: Sequence[str]
    use_custom_data: Callable[..., None]
    check_datasets: Callable[..., list]
    predictor: Callable[..., Any]
    writer: Callable[..., Any]
    draw_sample: Callable[[Sample, Sequence[str]], np.ndarray]
    describe_samples: Callable[[Sequence[Sample]], str]
    onnx_form: Callable[..., Any]
    compare: Callable[..., Any]
    training_pass: Callable[..., Any]


def task_of(cfg: DictConfig) -> Task:
    """What a config's models do.

    Raises:
        UserError: the config's `task` is none.
    """
    try:
        task = instantiate(cfg.task)
    except (ImportError, AttributeError, TypeError, AssertionError) as e:
        raise UserError(f"task={cfg.task} cannot be made: {e}") from e
    if not isinstance(task, Task):
        raise UserError(f"task={cfg.task} is not a task of this project; leave it out for detection.")
    return task
