"""`python -m pretrain.submit --nodes 4 --gpus 8 -- FLAGS`: pretraining on SLURM through submitit."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.__main__ import main as pretrain_main
from pretrain.common.commands import add_traceback_option, exit_on_user_error
from pretrain.common.utf8 import use_utf8
from pretrain.training.args import parse_args
from pretrain.training.argument_checks import check_at_least


class Job:
    """One task of the SLURM job; when the job is preempted or times out, it is queued again and resumes."""

    def __init__(self, argv: list[str]):
        self.argv = argv

    def __call__(self) -> None:
        import submitit

        # Every process sees all GPUs of its node and takes that of its local rank.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        pretrain_main(self.argv)

    def checkpoint(self) -> Any:
        import submitit

        from pretrain.training.checkpoint_files import Checkpoints

        args = parse_args(self.argv)
        has_saved = bool(Checkpoints(Path(args.output_dir), args.keep_checkpoints).files())
        # A file that --resume names was the start of the run; from now on its own checkpoints are.
        return submitit.helpers.DelayedSubmission(Job([*self.argv, "--resume", "auto"] if has_saved else self.argv))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pretrain.submit", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1, help="[1]")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs, and so processes, on each node [8]")
    parser.add_argument("--hours", type=int, default=72, help="time limit [72]")
    parser.add_argument("--partition", help="SLURM partition")
    parser.add_argument("flags", nargs="+", help="after `--`: the flags of python -m pretrain")
    add_traceback_option(parser)
    args = parser.parse_args(argv)
    try:
        import submitit
    except ImportError:
        sys.exit("error: this needs submitit; install it with pip install submitit")
    with exit_on_user_error():
        check_at_least(args, 1, "nodes", "gpus", "hours")
        run_args = parse_args(args.flags)
    flags = args.flags if run_args.resume else [*args.flags, "--resume", "auto"]
    executor = submitit.AutoExecutor(folder=Path(run_args.output_dir) / "slurm")
    executor.update_parameters(
        name="pretrain",
        nodes=args.nodes,
        tasks_per_node=args.gpus,
        gpus_per_node=args.gpus,
        cpus_per_task=10,
        timeout_min=args.hours * 60,
        slurm_partition=args.partition,
    )
    sys.stdout.write(f"{executor.submit(Job(flags)).job_id}\n")


if __name__ == "__main__":
    use_utf8()
    main()
