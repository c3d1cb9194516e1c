"""What is written for each image of a prediction: an overlay with a legend, and the class map itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from convmae_seg.colors import class_colors
from convmae_seg.predictor import SegmentationPredictor
from convmae_seg.visualization import draw_class_map
from lazyrun.inference.journal import Journal
from lazyrun.inference.writer import PredictionWriter
from lazyrun.viz.pictures import write_picture
from pretrain.common.errors import UserError
from pretrain.common.files import replacing, save_json

__all__ = ["LabelMapWriter"]


class LabelMapWriter(PredictionWriter):
    """Writes class maps as `labels/*.png` at once, and which label is which class in the end.

    The pixels of a label map are labels as in the data that the model was trained on: class indices where labels
    count from 0, class indices plus 1 where they count from 1. Label maps have 8 bits, or 16 if a label needs them.

    Args:
        output: folder, made if it is missing.
        predictor: gives the classes.
        score_threshold: of no meaning here.
        crops, masks: for detectors.
        journal: as of the base class.

    Raises:
        UserError: crops or masks are asked for.
    """

    def __init__(
        self,
        output: Path,
        predictor: SegmentationPredictor,
        *,
        score_threshold: float,
        crops: bool,
        masks: bool,
        journal: Journal | None = None,
    ):
        if crops or masks:
            raise UserError("--save-crops and --save-masks are for detectors; label maps are always written.")
        super().__init__(output, predictor, score_threshold=score_threshold, crops=False, masks=False, journal=journal)
        names = predictor.class_names or [f"class {i}" for i in range(predictor.model.num_classes)]
        ids = [c["id"] for c in predictor.categories] or range(len(names))
        self.class_names, self.colors = names, class_colors(len(names))
        self.ids = np.array(ids, np.uint16 if max(ids) > 255 else np.uint8)
        self.files: dict[Path, Path] = {}

    def expect(self, names: Sequence[Path]) -> None:
        """Gives each image the name of its label map."""
        taken = set(self.files.values())
        for name in names:
            file = name.with_suffix(".png")
            # a.jpg and a.png may lie in one folder.
            self.files[name] = name.with_name(f"{name.name}.png") if file in taken else file
            taken.add(self.files[name])

    def add(
        self, image: np.ndarray, prediction: np.ndarray, entry: dict, name: Path, overlay_file: Path | None = None
    ) -> np.ndarray:
        """Writes one image's label map and overlay, then notes it; returns the overlay.

        Args:
            image: RGB uint8 `(H, W, 3)`.
            prediction: class indices `(H, W)`.
            entry: what the image list says of it; its size and the name of its label map are added.
            name: relative path that its files are named after.
            overlay_file: where to write the overlay; None leaves it to the caller.
        """
        if name not in self.files:
            self.expect([name])
        file = self.files[name]
        path = self.output / "labels" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(self.ids[prediction]).save(temporary)
        overlay = draw_class_map(image, prediction, self.class_names, self.colors)
        if overlay_file is not None:
            write_picture(overlay_file, overlay)
        height, width = image.shape[:2]
        self.journal.add(
            {**entry, "width": width, "height": height, "label_map": f"labels/{file.as_posix()}"}, results=[]
        )
        return overlay

    def close(self) -> None:
        """Writes `images.json`: which label map belongs to which image, and which label is which class."""
        categories = [
            {"id": int(label), "name": name, "color": list(color)}
            for label, name, color in zip(self.ids, self.class_names, self.colors, strict=True)
        ]
        save_json({"images": list(self.journal.entries()), "categories": categories}, self.output / "images.json")

    def summary(self) -> str:
        return f"{self.journal.images} images"
