"""`python -m pretrain`: pretrain ConvMAE, FastConvMAE or ConvMAE-v2."""

from collections.abc import Sequence

from pretrain.common.commands import run_command
from pretrain.common.utf8 import use_utf8
from pretrain.training.args import parse_args
from pretrain.training.pretraining import run


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(parse_args(argv)))


if __name__ == "__main__":
    use_utf8()
    main()
