#!/usr/bin/env python3
"""Parameters and FLOPs of a detector by module, with fvcore's counter: a multiply-add is one FLOP."""

import argparse
import sys

from lazyrun.config.trust_option import add_trust_option
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.errors import UserError
from pretrain.common.utf8 import use_utf8

CONFIG = "projects/ConvMAEDet/configs/COCO/mask_rcnn_vitdet_convmae_b_25ep.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=CONFIG, help="LazyConfig (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of the image in pixels (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=2, help="levels of modules to list (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config, after a --")
    add_trust_option(parser)
    add_traceback_option(parser)
    args = parser.parse_args()
    with exit_on_user_error():
        for name in ("size", "depth"):
            if getattr(args, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}.")
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        import torch
        from fvcore.nn import flop_count_table, parameter_count

        from convmae_det.flops import flop_analysis
        from lazyrun.benchmarks.models import build_detector
        from lazyrun.config.changes import suspecting
        from lazyrun.config.loading import load_config

        model = build_detector(load_config(args.config_file, args.opts), args.size, torch.device("cpu"))
        with torch.no_grad(), suspecting([f"--size {args.size}", *args.opts]):
            image = torch.randint(0, 256, (3, args.size, args.size)).float()
            analysis = flop_analysis(model, image)
            total = analysis.total()
        sys.stdout.write(
            f"{flop_count_table(analysis, max_depth=args.depth + 1)}\n\n"
            f"{parameter_count(model)[''] / 1e6:.1f} M parameters, {total / 1e12:.3f} T FLOPs for one image of "
            f"{args.size}x{args.size} pixels\n"
        )


if __name__ == "__main__":
    use_utf8()
    main()
