"""`--trust-config`; it is known to tools that do without detectron2, too."""

import argparse
import os

__all__ = ["add_trust_option", "trusts_configs"]

_TRUST_CONFIG = "LAZYRUN_TRUST_CONFIG"
"""Environment variable, so that processes which a command starts follow its --trust-config."""


class _TrustConfig(argparse.Action):
    def __call__(self, *_: object) -> None:
        os.environ[_TRUST_CONFIG] = "1"


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--trust-config`, under which a YAML config and overrides may name anything."""
    parser.add_argument(
        "--trust-config",
        action=_TrustConfig,
        nargs=0,
        default=argparse.SUPPRESS,
        help="let a YAML config and overrides name classes and functions of any package, which can run any code",
    )


def trusts_configs() -> bool:
    """Whether `--trust-config` was given, to this command or the one that started it."""
    return bool(os.environ.get(_TRUST_CONFIG))
