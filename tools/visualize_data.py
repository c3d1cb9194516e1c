#!/usr/bin/env python3
"""Draw what a config's loader feeds to the model, after augmentation: images with boxes, masks and class names, or
under their label maps.

Writes a contact sheet, sheet.png, and every image by itself. Look at it before a long training: wrong boxes, swapped
colours, objects cut off and misnamed classes are plain to see.

    python tools/visualize_data.py --config-file CONFIG.py --output pictures data.image_size=512
"""

import argparse
import itertools
import logging
from contextlib import ExitStack
from pathlib import Path

from lazyrun.config.trust_option import add_trust_option
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="LazyConfig .py file, or the config.yaml of a run")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=12, help="images to draw (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config, as in training")
    add_trust_option(parser)
    add_traceback_option(parser)
    return parser.parse_args(argv)


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_on_user_error(), ExitStack() as closing:
        if args.count < 1:
            raise UserError(f"--count {args.count}: at least one image is drawn.")
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        import convmae_det  # noqa: F401 (registers what a run's config.yaml may name)
        from lazyrun.config.data_options import temporary_cache
        from lazyrun.config.loading import load_config
        from lazyrun.config.task import task_of
        from lazyrun.data.samples import class_names, iterate_samples
        from lazyrun.viz.instances import contact_sheet
        from lazyrun.viz.pictures import write_picture

        cfg = load_config(args.config_file, args.opts)
        task = task_of(cfg)
        closing.enter_context(temporary_cache(cfg))
        task.use_custom_data(cfg, training=args.split == "train")
        source = iterate_samples(cfg, args.split)
        if cfg.train.check_data and "train" in cfg.dataloader:
            task.check_datasets(cfg, training=args.split == "train")
        samples = list(itertools.islice(source, args.count))
        names = class_names(cfg, args.split)
        pictures, titles = [], []
        for number, sample in enumerate(samples, start=1):
            picture = task.draw_sample(sample, names)
            write_picture(args.output / f"{number:03d}_{Path(sample.file_name).stem}.png", picture)
            pictures.append(picture)
            height, width = sample.image.shape[:2]
            titles.append(f"{Path(sample.file_name).name} {width}x{height}, {task.describe_samples([sample])}")
        write_picture(args.output / "sheet.png", contact_sheet(pictures, titles))
    print(f"{args.output / 'sheet.png'}: {len(samples)} images, {task.describe_samples(samples)}")


if __name__ == "__main__":
    use_utf8()
    main()
