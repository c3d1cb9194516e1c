#!/usr/bin/env python3
"""Look at annotated images before training: what there is, what is odd, and whether training would be refused.

Takes what data.train=PATH takes. Prints a table and writes one HTML page with pictures. Every image is opened, once:
what was found is remembered, here and by the training command, until the file changes.

    python tools/check_data.py photos/train --val photos/val --output photos_check.html

Exit code 0: training would begin, whatever the page lists. 1: it would be refused; the sentences at the end say why.
"""

import argparse
import io
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lazyrun.config.trust_option import add_trust_option
from lazyrun.data.inspection import WORKERS
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError

if TYPE_CHECKING:
    from lazyrun.data.inspection.look import Look

PAGE = "data_check.html"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="annotation file, or folder with annotations and images, to train on")
    parser.add_argument(
        "opts", nargs="*", metavar="key=value", help="options as in training, such as data.val_fraction=0.2"
    )
    parser.add_argument("--val", type=Path, metavar="PATH", help="the same for evaluation")
    parser.add_argument(
        "--output", type=Path, default=Path(PAGE), help="page to write, or a folder for it (default: %(default)s)"
    )
    parser.add_argument("--config-file", help="of the training: its anchors, image size and masks are compared with")
    parser.add_argument("--image-size", type=int, metavar="N", help="data.image_size (default: the config's, or 1024)")
    parser.add_argument("--count", type=int, default=12, help="samples drawn of each set (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="threads that open images (default: %(default)s)")
    add_trust_option(parser)
    add_traceback_option(parser)
    return parser.parse_intermixed_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    for name, least in (("workers", 1), ("count", 0), ("image_size", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least {least}.")
    if args.output.suffix.lower() in (".html", ".htm") and not args.output.is_dir():
        args.output.parent.mkdir(parents=True, exist_ok=True)
        return
    if args.output.exists() and not args.output.is_dir():
        raise UserError(f"--output {args.output} is a file that does not end in .html; name a page or a folder.")
    args.output.mkdir(parents=True, exist_ok=True)
    args.output /= PAGE


def print_summary(found: "Look") -> None:
    """The table, and a line for each kind of oddity."""
    if found.figures:
        from lazyrun.data.inspection.table import text_table

        print(text_table(found.figures, found.model))
    groups = [("files", found.shared)]
    for name, one in found.sets.items():
        groups += [(f"{name}, changed or left out", one.mended), (f"{name}, taken as it is", one.odd)]
    for label, findings in groups:
        if findings:
            print(f"\n{label}:", *(f"  {sentence}" for sentence in findings.sentences()), sep="\n")
    print()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that the terminal's encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
    with exit_on_user_error():
        check_arguments(args)
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        import convmae_det  # noqa: F401 (registers what a run's config.yaml may name)
        from lazyrun.config.data_look import look_at_data
        from lazyrun.viz.data_page import write_data_page

        found = look_at_data(
            args.path,
            args.val,
            config_file=args.config_file,
            overrides=args.opts,
            image_size=args.image_size,
            workers=args.workers,
        )
        print_summary(found)
        write_data_page(found, args.output, title=args.path.resolve().name, count=args.count)
        print(f"{args.output}: open it in a browser.")
        if found.refusals:
            raise UserError("training would be refused:\n  " + "\n  ".join(found.refusals))
        print("Training would begin.")


if __name__ == "__main__":
    main()
