"""`python -m pretrain.knn`: weighted nearest neighbours on frozen features, as in DINO (arXiv:2104.14294, and before it
Wu et al., 2018, arXiv:1805.01978)."""

from collections.abc import Sequence

from pretrain.common.commands import run_command
from pretrain.common.utf8 import use_utf8
from pretrain.training.classification_args import parse_knn_args

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    def knn() -> None:
        args = parse_knn_args(argv)
        from pretrain.evaluation.neighbours import run  # takes seconds, which --help should not

        run(args)

    run_command(knn)


if __name__ == "__main__":
    use_utf8()
    main()
