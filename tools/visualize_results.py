#!/usr/bin/env python3
"""Draw predictions beside ground truth, one PNG an image, from an evaluation's COCO results file.

    python tools/visualize_results.py --results output/inference/coco_instances_results.json \
        --annotations datasets/coco/annotations/instances_val2017.json --images datasets/coco/val2017 --output pictures
"""

import argparse
import json
from pathlib import Path

import cv2

from convmae_det.visualization import draw_comparison, group_by_image
from pretrain.errors import UserError, exit_on_user_error


def read_json(path: Path) -> list | dict:
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    try:
        return json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path} is not a JSON file: {e}") from e


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="coco_instances_results.json of an evaluation")
    parser.add_argument("--annotations", type=Path, required=True, help="the data set's COCO annotation file")
    parser.add_argument("--images", type=Path, required=True, help="the data set's image folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=10, help="images to draw, the first ones (default: %(default)s)")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="least score drawn (default: %(default)s)")
    args = parser.parse_args()
    with exit_on_user_error():
        dataset, results = read_json(args.annotations), read_json(args.results)
        class_names = {c["id"]: c["name"] for c in dataset["categories"]}
        truth = group_by_image(dataset["annotations"])
        predictions = group_by_image([r for r in results if r["score"] >= args.score_threshold])
        args.output.mkdir(parents=True, exist_ok=True)
        for image in dataset["images"][: args.count]:
            pixels = cv2.imread(str(args.images / image["file_name"]))
            if pixels is None:
                raise UserError(f"Image {args.images / image['file_name']} is missing or cannot be read.")
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            picture = draw_comparison(pixels, truth[image["id"]], predictions[image["id"]], class_names)
            path = args.output / f"{Path(image['file_name']).stem}.png"
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(f"{len(dataset['images'][: args.count])} pictures in {args.output}")


if __name__ == "__main__":
    main()
