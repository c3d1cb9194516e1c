"""`python -m pretrain.finetune`: fine-tune a pretrained ConvViT on labelled images (MAE's recipe, arXiv:2111.06377)."""

from collections.abc import Sequence

from pretrain.common.commands import run_command
from pretrain.common.utf8 import use_utf8
from pretrain.training.classification_args import parse_finetune_args
from pretrain.training.finetuning import run

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> None:
    run_command(lambda: run(parse_finetune_args(argv)))


if __name__ == "__main__":
    use_utf8()
    main()
