"""`python -m pretrain.linprobe`: a linear classifier on frozen features (MAE's recipe, arXiv:2111.06377, table 10)."""

from collections.abc import Sequence

from pretrain.common.commands import run_command
from pretrain.common.utf8 import use_utf8
from pretrain.training.classification_args import parse_linprobe_args

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    def linprobe() -> None:
        args = parse_linprobe_args(argv)
        from pretrain.training.linear_probe import run  # takes seconds, which --help should not

        run(args)

    run_command(linprobe)


if __name__ == "__main__":
    use_utf8()
    main()
