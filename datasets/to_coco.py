#!/usr/bin/env python3
"""Write annotated images, in any format that training reads, as one COCO JSON file.

    python datasets/to_coco.py photos/ photos.json
    … data.train_json=photos.json data.train_images=photos

The formats are COCO JSON, Pascal VOC, YOLO, LabelMe, VIA, CVAT, Label Studio and instance masks; datasets/README.md
shows their layouts. The file holds exactly what `data.train=photos/` would train on. The image folder, which its file
names are relative to, is printed, and written to its `info`.
"""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8

if TYPE_CHECKING:
    from lazyrun.data.formats import AnnotatedSet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="annotation file, or folder with annotations and images")
    parser.add_argument("output", type=Path, help="JSON file to write; an earlier one is replaced")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="classes to keep, in this order (default: all)")
    parser.add_argument(
        "--split",
        choices=("train", "val"),
        help="the part that ImageSets, data.yaml or the names of folders call so (default: everything)",
    )
    add_traceback_option(parser)
    return parser.parse_args(argv)


def check_output(path: Path, output: Path) -> None:
    """Raises UserError unless the output can be written, or replaces a file that is no part of the input."""
    if output.suffix.lower() != ".json":
        raise UserError(f"{output} must end in .json.")
    if not output.parent.is_dir():
        raise UserError(f"{output} cannot be written: there is no folder {output.parent}.")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise UserError(f"{output} exists and is no plain file, which could be replaced; choose another name.")
    inside = output.resolve().is_relative_to(path.resolve())
    if output.exists() and inside:
        raise UserError(f"{output} is part of {path}, which is read; choose a name outside of it.")


def convert(path: Path, output: Path, classes: list[str] | None, split: str | None) -> "AnnotatedSet":
    """Reads `path` and writes `output`."""
    check_output(path, output)
    # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
    from lazyrun.data.formats import read_dataset
    from lazyrun.data.splits import choose_classes, write_coco

    found = read_dataset(path, split)
    if found.path != path.absolute() and output.resolve() == (found.json_file or path).resolve():
        raise UserError(f"{output} is the file that is read; choose another name.")
    if classes:
        found = choose_classes(found, classes)
    write_coco(found, output)
    return found


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with exit_on_user_error():
        found = convert(args.path, args.output, args.classes, args.split)
    root = os.path.relpath(found.root) if found.root.is_relative_to(Path.cwd()) else found.root
    what = f"{len(found.images)} images, {len(found.annotations)} objects, {len(found.names)} classes"
    print(f"{args.output}: {what}; the image folder is {root}")


if __name__ == "__main__":
    use_utf8()
    main()
