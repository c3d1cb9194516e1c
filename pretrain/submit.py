"""`python -m pretrain.submit --nodes 4 --gpus 8 -- FLAGS`: pretraining on SLURM through submitit."""

import argparse
import sys
from pathlib import Path

from pretrain.args import parse_args
from pretrain.errors import exit_on_user_error
from pretrain.trainer import run


class Job:
    """One task of the SLURM job; when the job is preempted or times out, it is queued again and resumes."""

    def __init__(self, argv: list[str]):
        self.argv = argv

    def __call__(self) -> None:
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export()
        run(parse_args(self.argv))

    def checkpoint(self):
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretrain.submit", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1, help="[1]")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs, and so processes, on each node [8]")
    parser.add_argument("--hours", type=int, default=72, help="time limit [72]")
    parser.add_argument("--partition", help="SLURM partition")
    parser.add_argument("flags", nargs="+", help="after `--`: the flags of python -m pretrain")
    args = parser.parse_args()
    try:
        import submitit
    except ImportError:
        sys.exit("error: this needs submitit; install it with pip install submitit")
    flags = args.flags if "--resume" in args.flags else [*args.flags, "--resume", "auto"]
    with exit_on_user_error(ValueError):
        output_dir = Path(parse_args(flags).output_dir)
    executor = submitit.AutoExecutor(folder=output_dir / "slurm")
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
    main()
