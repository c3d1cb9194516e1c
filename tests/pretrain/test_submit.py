"""What is queued on SLURM; submitit itself is replaced by a record of how it is called."""

import sys
from types import SimpleNamespace

import pytest

from pretrain import submit

FLAGS = ["--model", "convmae_convvit_tiny_patch16", "--data_path", "images"]


@pytest.fixture
def submitit(monkeypatch):
    calls = SimpleNamespace(exports=[], jobs=[])

    class Environment:
        def export(self, **flags):
            calls.exports.append(flags)

    class Executor:
        def __init__(self, folder):
            calls.folder = folder

        def update_parameters(self, **parameters):
            calls.parameters = parameters

        def submit(self, job):
            calls.jobs.append(job)
            return SimpleNamespace(job_id="7")

    helpers = SimpleNamespace(TorchDistributedEnvironment=Environment, DelayedSubmission=lambda job: job)
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(helpers=helpers, AutoExecutor=Executor))
    return calls


@pytest.mark.parametrize(
    ("given", "resume"),
    [([], ["--resume", "auto"]), (["--resume", "a.pth"], []), (["--resume=a.pth"], [])],
)
def test_a_job_resumes_unless_told_from_where(submitit, tmp_path, given, resume):
    flags = [*FLAGS, "--output_dir", str(tmp_path), *given]
    submit.main(["--nodes", "2", "--", *flags])
    assert submitit.jobs[0].argv == [*flags, *resume]
    assert submitit.folder == tmp_path / "slurm"
    assert (submitit.parameters["nodes"], submitit.parameters["tasks_per_node"]) == (2, 8)


def test_a_preempted_job_continues_from_its_own_checkpoints(submitit, tmp_path):
    job = submit.Job([*FLAGS, "--output_dir", str(tmp_path), "--resume", "a.pth"])
    assert job.checkpoint().argv == job.argv
    (tmp_path / "checkpoint-00000005.pth").touch()
    assert job.checkpoint().argv == [*job.argv, "--resume", "auto"]


def test_nothing_is_queued_on_no_node(submitit, tmp_path):
    with pytest.raises(SystemExit, match="error: --nodes must be at least 1, got 0"):
        submit.main(["--nodes", "0", "--", *FLAGS, "--output_dir", str(tmp_path)])
    assert not submitit.jobs


def test_a_job_reports_mistakes_as_the_command_does(submitit, tmp_path):
    job = submit.Job([*FLAGS, "--output_dir", str(tmp_path), "--data_path", "nowhere", "--device", "cpu"])
    with pytest.raises(SystemExit, match="error: There is no data at nowhere"):
        job()
    assert submitit.exports == [dict(set_cuda_visible_devices=False, overwrite=True)]
