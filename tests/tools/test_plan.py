"""Plans: against steps run here, their arithmetic, and the command."""

import runpy

import planned
import pytest
import torch
from omegaconf import OmegaConf
from parity import REPO
from shapes import CONFIG

from lazyrun.planning.config import config_to_plan, image_size_of
from pretrain.common.errors import UserError
from pretrain.common.planning.backward import run_backward
from pretrain.common.planning.fake import fake_tensors, make_fake
from pretrain.common.planning.memory import LiveStorages, StepMemory, bytes_of
from pretrain.common.planning.plan import Cost, Plan, Sharing, Training, largest_fitting, make_plan
from pretrain.common.planning.report import Assumptions, report
from pretrain.models import build_model
from pretrain.training.planning import pretraining_to_plan

TINY = ["--model=convmae_convvit_tiny_patch8"]
CASES = {
    "pretraining": lambda: planned.pretraining(TINY, 16, False),
    "checkpointed": lambda: planned.pretraining(TINY, 16, True),
    "detector": lambda: planned.detector(CONFIG, [], 64, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_plan_is_what_a_real_step_takes(case):
    plan, (saved, peak) = CASES[case]()
    assert plan.saved == pytest.approx(saved, rel=0.1)
    assert plan.peak == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_backward_in_python_gives_the_gradients_of_the_engine(checkpointed):
    model = build_model(TINY[0].partition("=")[2], act_checkpoint=checkpointed)
    imgs, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 64)
    model.forward_loss(imgs, 0.75, noise).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    run_backward(lambda: model.forward_loss(imgs, 0.75, noise))
    assert sum(grad is not None for grad in expected.values()) > 50
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (expected[name] is None)
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-7)


def test_backward_can_let_go_of_gradients():
    linear, x = torch.nn.Linear(3, 3), torch.ones(2, 3, requires_grad=True)
    run_backward(lambda: linear(x).sum(), keep_gradients=False)
    assert linear.weight.grad is None and linear.bias.grad is None and x.grad is None
    run_backward(lambda: linear(x).sum())
    assert linear.weight.grad is not None


def test_storages_count_once_and_while_they_live():
    with LiveStorages() as storages:
        a = torch.zeros(10)
        view = a[2:]
        b = a + 1
        del a
        assert storages.now == 80  # the view holds the storage
        del view
        assert (storages.now, storages.peak) == (40, 80)
        (b[None] @ b[:, None]).sum()
    assert storages.flops == 2 * 10


def test_storages_on_a_gpu_are_blocks_of_its_allocator():
    with fake_tensors(), LiveStorages() as storages:
        kept = [torch.empty(count, dtype=torch.uint8, device="cuda:0") for count in (1, 512, 513)]
        assert storages.now == 512 + 512 + 1024 and len(kept) == 3


def test_weights_that_two_modules_share_are_counted_once():
    first, second = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    with fake_tensors() as mode:
        model = make_fake(torch.nn.Sequential(first, second), mode, torch.device("cuda:0"))
        assert first.weight is second.weight and first.weight.device.type == "cuda"
        assert bytes_of([first.weight, second.weight]) == 4 * 9 and len(list(model.parameters())) == 1


def test_attention_on_a_gpu_keeps_no_matrix_of_all_pairs():
    with fake_tensors(), LiveStorages() as storages:
        q, k, v = (torch.empty(1, 2, 1024, 8, device="cuda:0", requires_grad=True) for _ in range(3))
        before = storages.now
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        # the output, a number for each query, and a seed and an offset of 512 bytes each at most
        assert out.nbytes < storages.now - before <= out.nbytes + 2 * 1024 * 4 + 2 * 512


def made_up_plan(sharing=None):
    training = Training("x", torch.nn.Identity(), None, None, (2, 4), batch_size=4, micro_batches=2, gpus=2, steps=10)
    probes = (2, StepMemory(20, 50, 100)), (4, StepMemory(40, 90, 200))
    return Plan(training, 1, 5, 30, 8, [Cost("off", False, probes)], sharing)


def test_largest_batch_is_the_last_that_fits():
    plan = made_up_plan()
    [cost] = plan.costs
    for memory in (42, 93, 101, 102, 103, 1000):
        n = largest_fitting(plan, cost, memory)
        assert plan.peak(cost, n + 1) > memory
        assert n == 0 or plan.peak(cost, n) <= memory
    assert (cost.saved(6), cost.peak(6)) == (60, 130)
    assert plan.peak(cost, 6) == 5 + 8 + 30 + 130  # parameters, optimizer, DDP's buckets, the step
    assert plan.gpu_hours(cost, 1.0) == pytest.approx(10 * 2 * 2 * 200 / 3600)


def test_what_is_shared_out_counts_by_the_gpu():
    plan = made_up_plan(Sharing(weights=4, outside=2, largest=1))
    [cost] = plan.costs
    share = (4 + 30 + 8) / 2  # weights, gradients, optimizer; no buckets
    assert plan.peak(cost, 6) == 1 + share + 3 * 2 + 5 * 1 + 130


def test_gpus_that_share_out_weights_need_less():
    plans = []
    for options in ([], ["--fsdp"]):
        training = pretraining_to_plan([*TINY, *options], 2, 1000)
        plans.append(make_plan(training, torch.device("cpu"), ["off"], checkpointing=[False]))
    whole, shared = plans
    assert len(training.units) > 4
    assert shared.sharing.weights == 4 * shared.parameters
    assert shared.costs[0].saved(8) == whole.costs[0].saved(8) and shared.costs[0].flops(8) == whole.costs[0].flops(8)
    assert shared.costs[0].peak(8) < whole.costs[0].peak(8)
    assert shared.peak(shared.costs[0], 8) < whole.peak(whole.costs[0], 8)
    said = ["its share" in report(plan, [8], Assumptions(1, 1, 0)) for plan in plans]
    assert said == [False, True]


def test_configs_say_what_is_shared_out():
    assert config_to_plan(CONFIG, ["train.fsdp=true"], 1, 1000).units is None
    assert config_to_plan(CONFIG, [], 2, 1000).units is None
    assert len(config_to_plan(CONFIG, ["train.fsdp=true"], 2, 1000).units) > 4


def test_images_of_a_config_are_padded_to_its_largest():
    def size_of(**data):
        return image_size_of(OmegaConf.create({"data": data}))

    assert size_of(image_size=1024, max_size=None) == (1024, 1024)
    assert size_of(train_short_edge=[480, 800, 640], max_size=1333) == (800, 1344)
    with pytest.raises(UserError, match="give --size HEIGHT WIDTH"):
        size_of()


def test_frozen_parts_have_no_gradients_and_no_optimizer_state():
    def planned(*overrides):
        training = config_to_plan(CONFIG, overrides, 1, 1000, (64, 64))
        return make_plan(training, torch.device("cpu"), ["off"], checkpointing=[False])

    whole, part = planned(), planned("train.freeze=trunk")
    trunk = sum(
        p.nbytes for p in config_to_plan(CONFIG, [], 1, 1000).model.backbone.net.parameters() if p.requires_grad
    )
    assert trunk > 0
    assert part.parameters == whole.parameters
    assert part.gradients == whole.gradients - trunk
    assert part.optimizer < whole.optimizer - 2 * trunk + 1000  # and no count of steps
    assert part.costs[0].saved(8) < whole.costs[0].saved(8) and part.costs[0].flops(8) < whole.costs[0].flops(8)


def test_pretraining_has_the_steps_of_its_run():
    def steps(*options, images):
        return pretraining_to_plan([*TINY, "--epochs=2", "--batch_size=10", *options], 2, images).steps

    assert steps(images=100) == steps(images=119) == 2 * 5  # images beyond whole batches wait for another epoch
    assert steps("--accum_iter=2", images=100) == 2 * 3
    assert steps("--max_steps=7", images=100) == 7


def run(monkeypatch, *arguments):
    monkeypatch.chdir(REPO)
    monkeypatch.setattr("sys.argv", ["plan.py", *arguments])
    runpy.run_path("tools/plan.py", run_name="__main__")


def test_command_reports_batches_and_hours(monkeypatch, capsys):
    options = ["--gpus=1", "--batch_sizes", "4", "--precisions", "bf16", "--images=1000", "--epochs=3"]
    run(monkeypatch, "pretrain", *TINY, "--batch_size=10", *options)
    out = capsys.readouterr().out
    assert "1 GPU(s) of 10 image(s)" in out and "| bf16 | on | 4 |" in out
    assert "DDP's buckets 0" in out and "\n300 steps of" in out


def test_all_configs_are_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plans = list(runpy.run_path(str(REPO / "tools" / "plan.py"))["everything"]())
    assert str(REPO / CONFIG) in [what for what, _ in plans]
    assert ("pretrain", TINY) in plans


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Name a config"),
        (["pretrain", "--model=nothing"], "There is no model 'nothing'"),
        (["pretrain", *TINY, "--targets", "rgb", "ema"], "Plans are for pixels alone"),
        (["pretrain", *TINY, "--images=100"], "--images 100 give no optimizer step"),
        (["nowhere.py"], "does not exist"),
        ([CONFIG, "--gpus=3"], "is not a positive multiple of 3: 3 training processes"),
        ([CONFIG, "dataloader.train.total_batch_size=0"], "dataloader.train.total_batch_size=0 "),
        ([CONFIG, "train.grad_accum_steps=0"], "train.grad_accum_steps=0 "),
        ([CONFIG, "train.grad_accum_steps=x"], "train.grad_accum_steps=x "),
        ([CONFIG, "train.freeze=nothing"], "train.freeze: the model has no part 'nothing'"),
        ([CONFIG, "--nonsense"], "--nonsense is no option"),
        ([CONFIG, "--utilisation=2"], "--utilisation must be above 0 and at most 1, got 2.0"),
        ([CONFIG, "--gpus=0"], "--gpus must be above 0, got 0"),
        (["--all", "--batch_sizes", "4"], "--size and --batch_sizes are of one plan; leave them out with --all"),
        (["pretrain", "--size", "64", "64"], "--size is of configs; pretraining takes --input_size"),
    ],
)
def test_mistakes_are_one_sentence(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code
    assert message in f"{ended.value}\n{capsys.readouterr().err}"
