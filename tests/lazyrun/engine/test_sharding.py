"""`train.fsdp`: runs of two processes that share out a detector, equal to others, stopped and resumed."""

import json
import shutil

import preloaded
import pytest
import torch
from detector_fsdp_runs import CONFIG, Small, batches
from shapes import REPO, SMALL, environment, make_shapes
from sharded import needs_sharding

from lazyrun.config.loading import load_config
from lazyrun.config.resolve import resolve_config
from lazyrun.engine.sharding import blocks_of, check_same_checkpoint, shards_weights
from lazyrun.modeling.build import build_model
from pretrain.common.errors import UserError

pytestmark = [
    needs_sharding,
    pytest.mark.skipif(torch.cuda.is_available(), reason="forked processes cannot use CUDA"),
]

# Nothing is drawn that depends on the process, and norms look at one image: two processes then see what one sees.
DRAWN = ["model.proposal_generator.batch_size_per_image=2000", "model.roi_heads.batch_size_per_image=200"]
NORMS = ["model.backbone.norm=LN", *(f"model.roi_heads.{head}.conv_norm=LN" for head in ("box_head", "mask_head"))]
OPTIONS = [
    *SMALL,
    *DRAWN,
    *NORMS,
    "model.backbone.net.drop_path_rate=0",
    "model.backbone.net.use_act_checkpoint=[true,false,true]",
    "train.layer_decay=0.7",
    "train.max_iter=4",
    "train.eval_period=2",
    "train.checkpointer.period=2",
    "+optimizer.eps=0.01",  # gradients that are rounding alone make no steps
    "optimizer.lr=0.002",
    "model.roi_heads.box_predictor.test_score_thresh=0",
]
ONE = ["train.grad_accum_steps=2"]
FSDP = ["train.fsdp=true"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs. `one` and `fsdp_then_one` had one process, the others two."""
    root = tmp_path_factory.mktemp("runs")
    data = make_shapes(root, train=8, val=3)  # uneven shares of the evaluation

    def options(name, *more):
        return [*OPTIONS, f"train.output_dir={root / name}", *more]

    def one_process(name, *flags):
        command = ["tools/lazyconfig_train_net.py", "--config-file", CONFIG, "--num-gpus=0", *flags]
        done = preloaded.run([*command, *options(name, *ONE)], environment(data))
        assert done.returncode == 0, done.stderr

    one_process("one")
    halves = {name: str(root / name / "model_0000001.pth") for name in ("one", "fsdp")}
    jobs = [
        {"opts": options("ddp")},
        {"opts": options("fsdp", *FSDP)},
        {"opts": options("fsdp_then_fsdp", *FSDP), "from": halves["fsdp"]},
        {"opts": options("one_then_fsdp", *FSDP), "from": halves["one"]},
    ]
    (root / "jobs.json").write_text(json.dumps(jobs))
    preloaded.run_as_two(["tests/support/detector_fsdp_runs.py", str(root / "jobs.json")], environment(data))
    (root / "fsdp_then_one").mkdir()
    shutil.copy(halves["fsdp"], root / "fsdp_then_one")
    one_process("fsdp_then_one", "--resume")
    return root


def content(folder, name="model_final.pth"):
    return torch.load(folder / name, weights_only=True)


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def assert_close(ours, theirs, tolerance=1e-6, least=0.0):
    """Within a share of the largest value of each tensor, or of what a few steps make of a bias that begins at 0."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape, name
        difference = (ours[name].double() - tensor.double()).abs().max()
        assert difference <= tolerance * max(tensor.abs().max().item(), least), (name, difference)


def moments(state):
    return {f"{i}.{name}": t for i, values in state["optimizer"]["state"].items() for name, t in values.items()}


@pytest.mark.parametrize("other", ["ddp", "one", "one_then_fsdp", "fsdp_then_one"])
def test_weights_are_those_of_other_runs(runs, other):
    ours, theirs = content(runs / "fsdp"), content(runs / other)
    assert ours["iteration"] == theirs["iteration"] == 3
    assert_close(ours["model"], theirs["model"], least=0.01)
    assert_close(moments(ours["trainer"]), moments(theirs["trainer"]), tolerance=1e-5)


@pytest.mark.parametrize("other", ["ddp", "one"])
def test_losses_are_those_of_other_runs(runs, other):
    ours, theirs = ([line for line in logged(runs / name) if "total_loss" in line] for name in ("fsdp", other))
    assert [line["iteration"] for line in ours] == [0, 1, 2, 3]
    names = [name for name in ours[0] if "loss" in name]
    assert len(names) == 6
    for a, b in zip(ours, theirs, strict=True):
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)  # another sum of as many squares


def test_resumed_is_the_uninterrupted_run(runs):
    ours, theirs = content(runs / "fsdp_then_fsdp"), content(runs / "fsdp")
    assert all(torch.equal(ours["model"][name], tensor) for name, tensor in theirs["model"].items())
    a, b = moments(ours["trainer"]), moments(theirs["trainer"])
    assert a.keys() == b.keys() and all(torch.equal(a[name], tensor) for name, tensor in b.items())
    assert ours["trainer"]["hooks"] == theirs["trainer"]["hooks"]


def test_files_are_those_of_any_run(runs):
    """The same names, as numbers of the first process alone; no copy of a slice."""
    ours, theirs = ({p.name for p in (runs / n).iterdir() if "tfevents" not in p.name} for n in ("fsdp", "ddp"))
    assert ours == theirs
    assert {"model_0000001.pth", "model_0000003.pth", "model_best.pth", "model_final.pth", "finished"} <= ours
    for name in ("model_0000001.pth", "model_best.pth", "model_final.pth"):
        ours, theirs = runs / "fsdp" / name, runs / "ddp" / name
        assert ours.stat().st_size == pytest.approx(theirs.stat().st_size, rel=0.01)
        ours, theirs = content(ours.parent, name), content(theirs.parent, name)
        assert ours.keys() == theirs.keys() and list(ours["model"]) == list(theirs["model"])
        assert ours["model"]._metadata == theirs["model"]._metadata
        assert all(type(tensor) is torch.Tensor for tensor in ours["model"].values())


def scores(folder):
    found = json.loads((folder / "inference/coco_instances_results.json").read_text())
    return sorted((d["image_id"], d["category_id"], d["score"]) for d in found)


def test_evaluations_are_equal(runs):
    """In processes with two images and one; the best weights are those of the same evaluation."""
    (*_, ours), (*_, theirs) = ([line for line in logged(runs / name) if "bbox/AP" in line] for name in ("fsdp", "ddp"))
    metrics = [name for name in theirs if name.startswith(("bbox/", "segm/"))]
    assert len(metrics) > 10
    assert [ours[name] for name in metrics] == pytest.approx([theirs[name] for name in metrics], nan_ok=True)
    ours, theirs = (torch.tensor(scores(runs / name), dtype=torch.float64) for name in ("fsdp", "ddp"))
    assert len(ours) > 20
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    a, b = (content(runs / name, "model_best.pth") for name in ("fsdp", "ddp"))
    assert (a["iteration"], a["value"]) == (b["iteration"], b["value"])


def stepped_alone(amp_dtype):
    """The same steps in one process, whose loss is the mean over all; the one that overflowed is left out."""
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    states = [{name: t.clone() for name, t in model.state_dict().items()}]
    for step in range(3):
        optimizer.zero_grad()
        for process, micro_batches in enumerate(batches()[:, step]):
            for images in micro_batches:
                with torch.autocast("cpu", dtype=amp_dtype, enabled=amp_dtype is not None):
                    losses = model(images)
                (losses["loss"] / 4 if process else sum(losses.values()) / 4).backward()
        if step != 1:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        states.append({name: t.clone() for name, t in model.state_dict().items()})
    return states


@pytest.mark.parametrize(("amp_dtype", "tolerance"), [(None, 1e-5), (torch.bfloat16, 1e-3)])
def test_a_head_that_one_process_skips_and_a_gradient_that_overflows_in_one(runs, amp_dtype, tolerance):
    expected = stepped_alone(amp_dtype)
    assert any(not torch.equal(expected[1][name], expected[3][name]) for name in expected[1])
    for rank in (0, 1):
        found = torch.load(runs / f"small_{rank}.pth", weights_only=True)[str(amp_dtype)]
        assert found["scale"] == 2.0**49
        if rank == 0:
            assert all(torch.equal(found["states"][0][name], tensor) for name, tensor in expected[0].items())
        for ours, theirs in zip(found["states"][1:], expected[1:], strict=True):
            assert_close(ours, theirs, tolerance)


BLOCKS = {
    CONFIG: {"ConvBlock": 2, "Block": 2, "Conv2d": 2},
    "projects/MIMDet/configs/shapes/mimdet_tiny.py": {"Sequential": 4, "Block": 6},
    "projects/ConvMAESeg/configs/shapes/upernet_convmae_tiny.py": {"ConvBlock": 2, "LayerScaleBlock": 1},
}


@pytest.mark.parametrize("config", BLOCKS)
def test_units_are_the_blocks_of_the_backbone(config):
    model = build_model(load_config(str(REPO / config), SMALL[1:3] if config == CONFIG else []))
    blocks = [type(block).__name__ for block in blocks_of(model.backbone)]
    assert {name: blocks.count(name) for name in blocks} == BLOCKS[config]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.fsdp=1", "train.fsdp=1 is neither true nor false"),
        ("train.compile=eager", "train.fsdp does not go with train.compile=eager; leave out"),
        ("train.ema.decay=0.9", "train.fsdp does not go with train.ema.decay=0.9, which averages whole weights"),
    ],
)
def test_what_it_does_not_go_with(option, message):
    with pytest.raises(UserError, match=message):
        resolve_config(str(REPO / CONFIG), [*FSDP, option], training=True)


def test_one_process_has_nothing_to_share_out(caplog):
    cfg = load_config(str(REPO / CONFIG), FSDP)
    with caplog.at_level("INFO", logger="lazyrun"):
        assert not shards_weights(cfg)
    assert "train.fsdp: one process has nothing to share out" in caplog.text


def test_processes_that_do_not_share_their_folder(monkeypatch):
    monkeypatch.setattr("lazyrun.engine.sharding.comm.all_gather", lambda mine: [mine, ""])
    check_same_checkpoint("")
    with pytest.raises(UserError, match=r"different checkpoints \(a\.pth, none\); .* must share train\.output_dir"):
        check_same_checkpoint("a.pth")
