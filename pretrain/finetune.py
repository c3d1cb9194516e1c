"""`python -m pretrain.finetune`: fine-tune a pretrained ConvViT on labelled images (MAE's recipe, arXiv:2111.06377)."""

from collections.abc import Sequence

from pretrain.common.commands import run_command
from pretrain.common.utf8 import use_utf8
from pretrain.training.classification_args import parse_finetune_args

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    def finetune() -> None:
        args = parse_finetune_args(argv)
        from pretrain.training.finetuning import run  # takes seconds, which --help should not

        run(args)

    run_command(finetune)


if __name__ == "__main__":
    use_utf8()
    main()
