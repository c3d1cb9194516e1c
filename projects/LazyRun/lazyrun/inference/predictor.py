"""A trained detector as a function of images."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image

from lazyrun.config.custom_data import set_class_count
from lazyrun.config.loading import load_config
from lazyrun.config.slicing import slicing_of
from lazyrun.data.categories import categories_of, stored_categories
from lazyrun.data.detections import max_detections
from lazyrun.data.image_inputs import ImageInputs
from lazyrun.data.images import decode_image
from lazyrun.data.original import ORIGINAL
from lazyrun.data.padding import check_padding
from lazyrun.modeling.build import build_model
from lazyrun.modeling.encoded import bounded_masks
from lazyrun.modeling.slicing import SlicedModel
from lazyrun.modeling.tta import with_tta
from lazyrun.modeling.weights import load_weights
from pretrain.common.devices import check_device
from pretrain.common.errors import UserError

__all__ = ["Predictor", "read_rgb"]


class Predictor:
    """A detector with its weights, test transform and class names.

    It predicts what `--eval-only` does for the same image: the transform and the channel order are those of the
    config's `dataloader.test.mapper`, and `test.tta` applies. The class count and names come from the checkpoint; one
    that stores none takes the names of the config's test set.

        predictor = Predictor("config.py", "weights.pth")
        instances = predictor("image.jpg")
        print([predictor.class_names[c] for c in instances.pred_classes], instances.scores)

    Args:
        config: LazyConfig `.py` file of any detection model, the `config.yaml` of a run, or what
            :func:`lazyrun.config.loading.load_config` made of either.
        weights: checkpoint with all weights of the model; None takes the config's `train.init_checkpoint`.
        overrides: `key=value` changes to the config, for a file.
        device: such as "cuda:1" or "cpu"; None takes a GPU if there is one.
        score_threshold: least score of what is returned, in [0, 1]; the model's own threshold remains.
        batch_size: images that go through the model at a time.

    Attributes:
        cfg: the config, with the checkpoint's number of classes.
        model: the detector, in evaluation mode.
        categories: `{"id", "name"}` of each class, in the order of class indices; the id is the annotation file's.

    Raises:
        UserError: the config or checkpoint cannot be used, or they do not belong together.
        FileNotFoundError: there is no such checkpoint.
    """

    model: Any

    def __init__(
        self,
        config: str | os.PathLike | DictConfig,
        weights: str | os.PathLike | None = None,
        *,
        overrides: Sequence[str] = (),
        device: str | None = None,
        score_threshold: float = 0.0,
        batch_size: int = 1,
    ):
        cfg = config.copy() if isinstance(config, DictConfig) else load_config(str(config), overrides)
        weights = str(weights or cfg.train.init_checkpoint)
        if not weights:
            raise UserError("No weights: name a checkpoint, or give the config a train.init_checkpoint.")
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_device(self.device)
        self.score_threshold, self.batch_size = score_threshold, batch_size
        stored = stored_categories(weights)
        if stored:
            set_class_count(cfg.model, len(stored))
        check_padding(cfg)
        self.cfg = cfg
        self.inputs = ImageInputs(cfg)
        model = build_model(cfg).to(self.device)
        load_weights(model, weights, strict=True, source="weights")
        self.model = with_tta(cfg, model.eval())
        names = cfg.dataloader.test.dataset.names
        self.categories = stored or categories_of(names if isinstance(names, str) else names[0]) or []

    @property
    def format(self) -> str:
        """Order of the channels that the model takes, such as "RGB"."""
        return self.inputs.format

    @property
    def class_names(self) -> list[str]:
        """Names in the order of `pred_classes`; empty where neither checkpoint nor config tell."""
        return [c["name"] for c in self.categories]

    def __call__(
        self, images: np.ndarray | str | os.PathLike | Sequence[np.ndarray | str | os.PathLike], **slicing: Any
    ) -> Instances | list[Instances]:
        """Predicts one image or a list of images.

        Args:
            images: each a file name or RGB uint8 `(H, W, 3)`, as Pillow and matplotlib give; OpenCV reads BGR, turn it
                around with `image[:, :, ::-1]`.
            slicing: in place of the config's `test.slice` and so on: `slice`, the side of the slices that large images
                are also predicted in, in pixels (None: none), and `slice_overlap`, `slice_whole`, `slice_metric`,
                `slice_threshold`, see :class:`lazyrun.slices.Slicing`.

        Returns:
            for each image :class:`detectron2.structures.Instances` on the CPU, best score first: `pred_boxes` `(N, 4)`
            as x0, y0, x1, y1 in pixels of the image, `scores` `(N,)`, `pred_classes` `(N,)` indices into
            `class_names`, and where the model has a mask head `pred_masks` bool `(N, H, W)`, or
            :class:`lazyrun.modeling.encoded.EncodedMasks` if that would be over 1 GB.

        Raises:
            UserError: an array is not an RGB image, or it cannot be sliced in this way.
            OSError: a file cannot be read, or an image is too narrow to be resized or has too many slices.
        """
        if isinstance(images, np.ndarray | str | os.PathLike):
            return self([images], **slicing)[0]
        found = [output["instances"].to("cpu") for output in self.outputs(images, **slicing)]
        return [instances[instances.scores >= self.score_threshold] for instances in found]

    def outputs(self, images: Sequence[np.ndarray | str | os.PathLike], **slicing: Any) -> Iterator[dict]:
        """What the model gives for each image; arguments and errors as of a call."""
        chosen = slicing_of(self.cfg, slicing)
        model = self.model
        if chosen:
            sizes = {"limit": max_detections(self.cfg), "batch_size": self.batch_size}
            model = SlicedModel(model, chosen, self.inputs, **sizes)
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            batch = [self._model_input(image, original=chosen is not None) for image in chunk]
            with torch.no_grad(), bounded_masks():
                outputs = model(batch)
            yield from outputs

    def to_coco(self, instances: Instances, image_id: int) -> list[dict]:
        """COCO results of one image: category ids of the annotation file, boxes as x, y, width, height, RLE masks."""
        results = instances_to_coco_json(instances, image_id)
        for result in results:
            index = result["category_id"]
            result["category_id"] = self.categories[index]["id"] if index < len(self.categories) else index
        return results

    def _model_input(self, image: np.ndarray | str | os.PathLike, *, original: bool = False) -> dict:
        if not isinstance(image, np.ndarray):
            image = read_rgb(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(f"An image must be RGB uint8 (H, W, 3), got {image.dtype} {image.shape}.")
        pixels = convert_PIL_to_numpy(Image.fromarray(image), self.format)
        return {**self.inputs(pixels), ORIGINAL: pixels} if original else self.inputs(pixels)


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """An image file as RGB uint8 `(H, W, 3)`, turned upright as its EXIF data say.

    Raises:
        OSError: the file is missing, damaged, no image, or has 32 bits a pixel.
    """
    try:
        return decode_image(path, "RGB")
    except OSError:
        raise
    except Exception as e:  # Pillow raises a dozen types for damaged files
        raise OSError(f"{path} cannot be read as an image: {e}") from e
