#!/usr/bin/env python3
"""Train or evaluate a detector or segmentation model defined by a LazyConfig file.

The command line is that of detectron2's script of the same name; it also runs on CPUs and under torchrun.
"""

import argparse
from typing import TYPE_CHECKING

from lazyrun.config.trust_option import add_trust_option
from lazyrun.engine.arguments import launch_parser
from pretrain.common.commands import add_launcher_option, add_traceback_option, exit_on_user_error
from pretrain.common.utf8 import use_utf8

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLES = """
examples:
  train on 8 GPUs       tools/lazyconfig_train_net.py --num-gpus 8 --config-file CONFIG.py
  with other options    ... train.output_dir=output/mine data.image_size=512 dataloader.train.total_batch_size=8
  go on after a stop    ... --resume
  check without training ... --dry-run
  evaluate              ... --eval-only train.init_checkpoint=output/mine/model_best.pth
  on a CPU              ... --num-gpus 0 train.device=cpu
  larger than one GPU   ... train.fsdp=true model.backbone.net.use_act_checkpoint=true
  several machines      torchrun --nnodes 2 --nproc-per-node 8 ... tools/lazyconfig_train_net.py --config-file CONFIG.py
"""


def main() -> None:
    parser = launch_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the run's numbers, check the data, build the model, train nothing"
    )
    add_launcher_option(parser)
    add_trust_option(parser)
    add_traceback_option(parser)
    args = parser.parse_args()
    with exit_on_user_error():
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        import convmae_det  # noqa: F401 (registers what a run's config.yaml may name)
        from lazyrun.config.loading import load_config
        from lazyrun.engine.launch import launch

        launch(train, args, load_config(args.config_file, args.opts))


def train(args: argparse.Namespace, cfg: "DictConfig | None") -> None:
    """The run of one process, which may be a new one that has imported nothing yet."""
    import convmae_det  # noqa: F401 (registers how pretraining files are loaded)
    from lazyrun.engine.run import run

    run(args, cfg)


if __name__ == "__main__":
    use_utf8()
    main()
