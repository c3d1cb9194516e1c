"""`python -m pretrain`: pretrain ConvMAE or FastConvMAE."""

import logging
import sys
from collections.abc import Sequence

from pretrain.args import parse_args
from pretrain.engine import NonFiniteError
from pretrain.errors import exit_on_user_error
from pretrain.trainer import run


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    with exit_on_user_error(ValueError, NonFiniteError):
        run(parse_args(argv))


if __name__ == "__main__":
    main()
