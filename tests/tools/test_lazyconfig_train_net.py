"""Training runs from the command line: interrupted ones end as uninterrupted ones do, and mistakes are told plainly."""

import json
import signal
import subprocess
import sys
import time

import preloaded
import torch
from shapes import REPO, environment, run_training, train_command

import convmae_det  # noqa: F401 (registers what a run's config.yaml may name)
from lazyrun.config.loading import load_config

OPTIONS = ("train.max_iter=12", "train.checkpointer.period=3", "train.grad_accum_steps=2")


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def interrupt(datasets, output, checkpoint: str, signum: int, *arguments: str) -> int:
    """Trains until `checkpoint` is there, sends a signal, and returns the exit code."""
    log = output.with_suffix(".log")
    process = preloaded.start(train_command(output, *OPTIONS, *arguments), environment(datasets), log, log)
    deadline = time.monotonic() + 120
    while not (output / checkpoint).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    code = process.wait(timeout=60)
    assert not (output / "model_final.pth").exists(), "the run ended before the signal"
    return code


def test_terminated_killed_and_resumed_equals_uninterrupted(shapes, tmp_path):
    done = run_training(shapes, tmp_path / "whole", *OPTIONS)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "broken"
    assert interrupt(shapes, run, "model_0000002.pth", signal.SIGTERM) == 128 + signal.SIGTERM
    stopped_at = torch.load(run / (run / "last_checkpoint").read_text(), weights_only=True)["iteration"]
    assert 2 <= stopped_at < 11
    assert interrupt(shapes, run, "model_0000008.pth", signal.SIGKILL, "--resume") == -signal.SIGKILL
    done = run_training(shapes, run, *OPTIONS, "--resume")
    assert done.returncode == 0, done.stderr
    ours, expected = weights(run / "model_final.pth"), weights(tmp_path / "whole" / "model_final.pth")
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)

    content = (run / "config.yaml").read_text()
    assert "${train.output_dir}/inference" in content  # reusable with another folder

    longer = run_training(shapes, run, "train.max_iter=13", "optimizer.lr=0.0005", "--resume")
    assert longer.returncode == 0, longer.stderr
    groups = torch.load(run / "model_final.pth", weights_only=True)["trainer"]["optimizer"]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.0005}

    config = (run / "config.yaml").read_bytes()
    again = run_training(shapes, run, "train.max_iter=13", "optimizer.lr=0.1", "--resume")
    assert again.returncode == 0 and "Nothing is left to do" in again.stdout
    assert (run / "config.yaml").read_bytes() == config  # that of the run, not of the command that did nothing
    shorter = run_training(shapes, run, "train.max_iter=12", "--resume")
    assert shorter.returncode == 1 and "Nothing is left to train" in shorter.stderr
    fresh = run_training(shapes, run, *OPTIONS)
    assert fresh.returncode == 1 and "already holds a run; add --resume" in fresh.stderr


def test_two_processes_train_evaluate_and_leave_everything(shapes, tmp_path):
    done = run_training(shapes, tmp_path / "run", "--num-gpus=2", "--dist-url=auto", "train.max_iter=2")
    assert done.returncode == 0, done.stderr
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"model_final.pth", "model_best.pth", "config.yaml", "metrics.json", "inference"} <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert (tmp_path / "run" / "inference" / "coco_instances_results.json").exists()
    assert "Checked shapes_train: 8 images" in done.stdout
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert "bbox/AP" in metrics[-1] and "segm/AP" in metrics[-1]

    evaluated = run_training(
        shapes, tmp_path / "run", "--eval-only", f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Task: bbox" in evaluated.stdout and "Task: segm" in evaluated.stdout


def test_epochs_accumulation_and_a_compiled_backbone_in_two_processes(shapes, tmp_path):
    chosen = ("train.epochs=1.5", "train.eval_epochs=0", "train.grad_accum_steps=2", "train.lr_base_batch_size=16")
    batch = "dataloader.train.total_batch_size=4"
    arguments = (tmp_path / "run", *chosen, batch, "train.compile=eager")
    done, _ = preloaded.run_as_two(train_command(*arguments), environment(shapes))
    assert "4 = 2 x 2 x 1 (processes x micro-batches x images)" in done.stdout
    cfg = load_config(str(tmp_path / "run" / "config.yaml"))
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.optimizer.lr) == (3, 0, 2.5e-4)
    final = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert final["iteration"] == 2 and not any("_orig_mod" in name for name in final["model"])
    assert all(group["fused"] for group in final["trainer"]["optimizer"]["param_groups"])

    again = preloaded.run_as_two(train_command(*arguments, "--resume"), environment(shapes))
    assert "".join(done.stdout for done in again).count("holds iteration 3 of train.max_iter=3") == 1


def test_torchrun(shapes, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += train_command(tmp_path / "run", "train.max_iter=1")
    done = subprocess.run(command, cwd=REPO, env=environment(shapes), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "World size: 2" in done.stdout and (tmp_path / "run" / "model_final.pth").exists()


def test_a_mistake_is_told_once_by_two_processes(shapes, tmp_path):
    """It is noticed before they join."""
    command = train_command(tmp_path / "run", "train.max_iters=1")
    ended = preloaded.run_as_two(command, environment(shapes), code=1)
    assert "".join(done.stderr for done in ended).count("error: Override 'train.max_iters'") == 1


def test_a_dry_run_shows_the_numbers_checks_and_builds_but_writes_nothing(shapes, tmp_path):
    rehearsed = run_training(shapes, tmp_path / "run", "--dry-run", "train.epochs=2")
    assert rehearsed.returncode == 0, rehearsed.stderr
    for part in ("iterations     8 = 2 epochs of 4.0", "Checked shapes_train: 8 images", "M parameters", "Dry run: "):
        assert part in rehearsed.stdout
    assert not (tmp_path / "run").exists()
    evaluation = run_training(shapes, tmp_path / "run", "--dry-run", "--eval-only")
    assert evaluation.returncode == 0 and "ready for the evaluation" in evaluation.stdout
    refused = run_training(shapes, tmp_path / "run", "--dry-run", f"train.init_checkpoint={tmp_path / 'none.pth'}")
    assert refused.returncode == 1 and "none.pth does not exist" in refused.stderr
    assert not (tmp_path / "run").exists()


def evaluations(run) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    return [line for line in lines if "bbox/AP" in line]


def test_a_run_killed_at_its_very_end_is_finished(shapes, tmp_path):
    """Killed after its last periodic checkpoint: what is due is written and evaluated, also of averaged weights."""
    options = ("train.max_iter=4", "train.checkpointer.period=2", "train.eval_period=4", "train.ema.decay=0.5")
    options += ("train.best_metric=ema/bbox/AP50", "train.freeze=[stage1]")
    done = run_training(shapes, tmp_path / "whole", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "whole/finished").read_text() == "4"

    whole = torch.load(tmp_path / "whole/model_0000003.pth", weights_only=True)
    half = torch.load(tmp_path / "whole/model_0000001.pth", weights_only=True)
    still = [name for name in whole["model"] if ".blocks1." in name or ".patch_embed1." in name]
    assert still and all(torch.equal(whole["model"][name], half["model"][name]) for name in still)

    for last in ("model_0000003.pth", "model_0000001.pth"):
        run = tmp_path / f"broken_{last}"
        run.mkdir()
        (run / last).write_bytes((tmp_path / "whole" / last).read_bytes())
        (run / "last_checkpoint").write_text(last)
        resumed = run_training(shapes, run, *options, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        for name in ("model_final.pth", "model_final_ema.pth", "model_best.pth"):
            ours, expected = weights(run / name), weights(tmp_path / "whole" / name)
            assert ours.keys() == expected.keys()
            assert all(torch.equal(ours[key], expected[key]) for key in expected), name
        (ours,), (expected,) = evaluations(run), evaluations(tmp_path / "whole")
        metrics = [key for key in expected if key.startswith(("bbox/", "segm/", "ema/"))]
        assert len(metrics) > 20 and [ours[key] for key in metrics] == [expected[key] for key in metrics]

    again = run_training(shapes, run, *options, "--resume")
    assert again.returncode == 0 and "Nothing is left to do" in again.stdout
    assert len(evaluations(run)) == 1
