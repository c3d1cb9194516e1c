"""Generated shapes as a user's own data set: three classes whose ids are neither small nor in a row."""

import json
from pathlib import Path

CATEGORIES = [{"id": 90, "name": "kite"}, {"id": 7, "name": "coin"}, {"id": 21, "name": "box"}]
NAMES = ["coin", "box", "kite"]  # in the order of ids


def write_custom(shapes: Path, output: Path, *, masks: bool = True) -> list[str]:
    """Rewrites the annotations of `shapes`; returns the options that train on them.

    Circles become coins, squares boxes, the rest kites.
    """
    options = []
    for split in ("train", "val"):
        content = json.loads((shapes / "shapes" / "annotations" / f"instances_{split}.json").read_text())
        content["categories"] = CATEGORIES
        for annotation in content["annotations"]:
            annotation["category_id"] = {1: 7, 2: 21}.get(annotation["category_id"], 90)
            if not masks:
                del annotation["segmentation"]
        file = output / f"{split}.json"
        file.write_text(json.dumps(content))
        options += [f"data.{split}_json={file}", f"data.{split}_images={shapes / 'shapes' / split}"]
    return options
