"""The arguments of a command that starts processes, as detectron2 has them.

Its own parser is in a module that takes seconds to import; tests/lazyrun/engine/test_arguments.py compares the two.
"""

import argparse
import os

__all__ = ["launch_parser"]


def launch_parser(description: str, epilog: str) -> argparse.ArgumentParser:
    """The options of `detectron2.engine.default_argument_parser`, with its defaults; a command may add some.

    Args:
        description: what --help shows above the options.
        epilog: what it shows below.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="LazyConfig .py file, or the config.yaml of a run")
    add("--resume", action="store_true", help="go on from the newest checkpoint in train.output_dir")
    add("--eval-only", action="store_true", help="evaluate, train nothing")
    add("--num-gpus", type=int, default=1, help="GPUs, and so processes, on each machine; 0: one on the CPU [1]")
    add("--num-machines", type=int, default=1, help="[1]")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0 [0]")
    add("--dist-url", default=f"tcp://127.0.0.1:{_port()}", metavar="URL", help="where processes meet [%(default)s]")
    add("opts", nargs=argparse.REMAINDER, metavar="key=value", help="overrides of the config, behind all options")
    return parser


def _port() -> int:
    """One of each user, so that orphans of an earlier run are noticed."""
    return 2**15 + 2**14 + hash(os.getuid() if hasattr(os, "getuid") else 1) % 2**14
