"""`python -m pretrain`: pretrain ConvMAE, FastConvMAE, ConvMAE-v2 or VideoConvMAE."""

from collections.abc import Sequence

from pretrain.common.commands import run_command
from pretrain.common.utf8 import use_utf8
from pretrain.training.args import parse_args


def main(argv: Sequence[str] | None = None) -> None:
    def pretrain() -> None:
        args = parse_args(argv)
        # Imported only now: they take seconds, which --help and a mistake in the arguments should not.
        from pretrain.data.labelled import is_video
        from pretrain.training.pretraining import pretraining_parts, run
        from pretrain.training.video_pretraining import video_pretraining_parts

        run(args, video_pretraining_parts if is_video(args) else pretraining_parts)

    run_command(pretrain)


if __name__ == "__main__":
    use_utf8()
    main()
