"""`python -m pretrain`: pretrain ConvMAE or FastConvMAE."""

from collections.abc import Sequence

from pretrain.args import parse_args
from pretrain.errors import run_command
from pretrain.trainer import run


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(parse_args(argv)))


if __name__ == "__main__":
    main()
