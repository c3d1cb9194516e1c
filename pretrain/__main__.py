"""`python -m pretrain`: pretrain ConvMAE or FastConvMAE."""

import logging
import os
import sys
from collections.abc import Sequence

from pretrain.args import parse_args
from pretrain.engine import NonFiniteError
from pretrain.trainer import run


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        run(parse_args(argv))
    except (ValueError, FileNotFoundError, NonFiniteError) as e:
        if os.environ.get("PRETRAIN_TRACEBACK"):
            raise
        # An error in a process of the data loader arrives with that process's traceback in front.
        sys.exit("error: " + str(e).strip().splitlines()[-1].removeprefix("ValueError: "))


if __name__ == "__main__":
    main()
