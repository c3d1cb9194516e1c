"""Whole runs of fine-tuning, linear probe and nearest neighbours: resuming, processes, files, and mistakes."""

import gzip
import json
import os
import shutil
import signal
import time

import numpy as np
import preloaded
import pytest
import torch
from parity import REPO
from PIL import Image
from published import scaled

from pretrain import finetune, knn, linprobe
from pretrain.__main__ import main as pretrain_main
from pretrain.common.distributed import World
from pretrain.common.files import load_checkpoint, save_atomically
from pretrain.evaluation.features import extract_features

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
CLASSES = ("bright", "dark", "striped")


def picture(kind, generator):
    base = {"bright": 200, "dark": 40, "striped": 120}[kind]
    pixels = np.full((32, 32), base) + (kind == "striped") * 80 * (np.arange(32) % 8 < 4)
    return Image.fromarray((pixels + generator.integers(0, 30, (32, 32))).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes that are easy to tell, four training and three held-out pictures of each."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for kind in CLASSES:
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                picture(kind, generator).save(root / split / kind / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """A pretraining file of one step, at 32x32 pixels."""
    output_dir = tmp_path_factory.mktemp("pretrained")
    flags = arguments(data, output_dir, model="convmae_convvit_tiny_patch8_32", epochs=1, batch_size=12)
    pretrain_main(flags)
    return output_dir / "encoder.pth"


def arguments(data, output_dir, **overrides):
    flags = dict(
        model="convvit_tiny_patch8_32",
        in_chans=1,
        data_path=data,
        output_dir=output_dir,
        batch_size=4,
        epochs=2,
        warmup_epochs=1,
        lr=1e-3,
        num_workers=0,
        device="cpu",
        log_steps=1,
    )
    flags |= overrides
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value)) if value is not None]
    return [word for word in words if word != "True"]


def knn_arguments(data, output_dir, **overrides):
    none = dict.fromkeys(("epochs", "warmup_epochs", "lr", "log_steps"))
    return arguments(data, output_dir, **none | dict(k=3) | overrides)


def fails(command, message, flags):
    with pytest.raises(SystemExit, match=message) as e:
        command.main(flags)
    assert "\n" not in str(e.value)


def result(output_dir, name):
    return json.loads((output_dir / f"{name}.json").read_text())


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in leaves(tree[key])]
    return [leaf for item in tree for leaf in leaves(item)] if isinstance(tree, list | tuple) else [tree]


def assert_same_run(a, b, step):
    a, b = (load_checkpoint(path / f"checkpoint-{step:08d}.pth") for path in (a, b))
    for part in ("model", "optimizer", "stepper", "rng", "totals", "epoch", "iteration", "best", "classes", "ema"):
        for x, y in zip(leaves([a.get(part)]), leaves([b.get(part)]), strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, part


def two_processes(module, flags):
    preloaded.run_as_two(["-m", module, *flags], ENVIRONMENT)


@pytest.fixture(scope="module")
def finetuned(data, pretrained, tmp_path_factory):
    """Two epochs of three steps with everything switched on."""
    output_dir = tmp_path_factory.mktemp("finetuned")
    finetune.main(arguments(data, output_dir, init_weights=pretrained, model_ema=0.9, save_steps=1))
    return output_dir


def test_files_of_a_finetuning(finetuned):
    names = {p.name for p in finetuned.iterdir() if not p.name.startswith("events")}
    assert names == {
        "args.json",
        "log.jsonl",
        "finetune.json",
        "classifier.pth",
        "classifier_best.pth",
        "classifier_ema.pth",
        "checkpoint-00000005.pth",
        "checkpoint-00000006.pth",
    }
    lines = [json.loads(line) for line in (finetuned / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1] and "ema_acc1" in lines[1]
    found = result(finetuned, "finetune")
    assert found["images"] == 9 and found["classes"] == 3 and found["best"]["val_acc1"] >= found["acc1"]
    assert load_checkpoint(finetuned / "classifier.pth")["classes"] == list(CLASSES)


def test_killed_and_resumed_equals_uninterrupted(data, pretrained, finetuned, tmp_path):
    flags = arguments(data, tmp_path, init_weights=pretrained, model_ema=0.9, save_steps=1, resume="auto")
    process = preloaded.start(["-m", "pretrain.finetune", *flags], ENVIRONMENT)
    while not any(int(p.stem[-8:]) >= 2 for p in tmp_path.glob("checkpoint-*.pth")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    finetune.main(flags)
    assert_same_run(tmp_path, finetuned, 6)
    assert result(tmp_path, "finetune") == result(finetuned, "finetune")


@pytest.mark.parametrize("augment", ["--augment", "--no-augment"])
def test_a_stopped_probe_resumes_exactly(data, pretrained, tmp_path, augment):
    flags = dict(init_weights=pretrained, save_steps=1, resume="auto", lr=0.1)
    linprobe.main([*arguments(data, tmp_path / "whole", **flags), augment])
    linprobe.main([*arguments(data, tmp_path / "stopped", max_steps=4, **flags), augment])
    linprobe.main([*arguments(data, tmp_path / "stopped", **flags), augment])
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", 6)


def test_the_probe_trains_its_head_alone(data, pretrained, tmp_path):
    linprobe.main([*arguments(data, tmp_path, init_weights=pretrained, lr=0.1), "--no-augment"])
    before, after = load_checkpoint(pretrained)["model"], load_checkpoint(tmp_path / "classifier.pth")["model"]
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(("patch_embed", "blocks")))
    assert {name for name in after if name.startswith("head")} == {
        "head.0.running_mean",
        "head.0.running_var",
        "head.0.num_batches_tracked",
        "head.1.weight",
        "head.1.bias",
    }
    assert after["head.0.num_batches_tracked"] == 6


def test_cached_features_change_nothing(data, pretrained, tmp_path):
    """Accuracy and loss of the file, whose evaluation runs the trunk, are those of the cached features."""
    linprobe.main([*arguments(data, tmp_path, init_weights=pretrained, lr=0.1), "--no-augment"])
    linprobe.main([*arguments(data, tmp_path / "e", init_weights=tmp_path / "classifier.pth"), "--eval"])
    trained, evaluated = result(tmp_path, "linprobe"), result(tmp_path / "e", "eval")
    assert evaluated["acc1"] == trained["acc1"] and evaluated["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_two_processes_equal_one_in_finetuning(data, pretrained, tmp_path):
    """Nine held-out images: an evaluation that padded its share to equal length would count ten."""
    plain = dict(init_weights=pretrained, mixup=0, cutmix=0, drop_path=0, epochs=1, model_ema=0.9)
    finetune.main(arguments(data, tmp_path / "one", **plain))
    two_processes("pretrain.finetune", arguments(data, tmp_path / "two", **plain | dict(batch_size=2)))
    one, two = (load_checkpoint(tmp_path / n / "classifier.pth")["model"] for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5, msg=name)
    one, two = (result(tmp_path / n, "finetune") for n in ("one", "two"))
    assert one["acc1"] == pytest.approx(two["acc1"]) and one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["ema_loss"] == pytest.approx(two["ema_loss"], rel=1e-5)  # of the same average in both processes


def test_two_processes_equal_one_in_probe_and_neighbours(data, pretrained, tmp_path):
    flags = dict(init_weights=pretrained, epochs=1, lr=0.1)
    linprobe.main([*arguments(data, tmp_path / "one", **flags), "--no-augment"])
    two_processes("pretrain.linprobe", [*arguments(data, tmp_path / "two", **flags, batch_size=2), "--no-augment"])
    one, two = (load_checkpoint(tmp_path / n / "classifier.pth")["model"] for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5, msg=name)
    assert result(tmp_path / "one", "linprobe")["loss"] == pytest.approx(result(tmp_path / "two", "linprobe")["loss"])
    knn.main(knn_arguments(data, tmp_path / "one", init_weights=pretrained))
    two_processes("pretrain.knn", knn_arguments(data, tmp_path / "two", init_weights=pretrained))
    assert result(tmp_path / "one", "knn")["acc1"] == result(tmp_path / "two", "knn")["acc1"]


def test_evaluation_of_a_finetuned_file(data, finetuned, tmp_path, caplog, address_of):
    caplog.set_level("INFO")
    address = address_of(finetuned / "classifier.pth")
    finetune.main([*arguments(data, tmp_path, init_weights=address), "--eval"])
    trained, evaluated = result(finetuned, "finetune"), result(tmp_path, "eval")
    assert evaluated["acc1"] == trained["acc1"] and evaluated["loss"] == pytest.approx(trained["loss"], rel=1e-6)
    finetune.main([*arguments(data, tmp_path / "ema", init_weights=finetuned / "classifier_ema.pth"), "--eval"])
    averaged = result(tmp_path / "ema", "eval")
    assert averaged["acc1"] == trained["ema_acc1"] and averaged["loss"] == pytest.approx(trained["ema_loss"], rel=1e-6)
    assert averaged["loss"] != evaluated["loss"] and evaluated["weights"] == address
    line = f"* Acc@1 {trained['acc1']:.3f} Acc@5 100.000 loss {trained['loss']:.3f}"
    assert line in [record.getMessage() for record in caplog.records]


def test_another_input_size_resizes_positions(data, pretrained, tmp_path, caplog, address_of):
    caplog.set_level("INFO")
    finetune.main(arguments(data, tmp_path, init_weights=address_of(pretrained), input_size=48, epochs=1))
    assert "pos_embed resized from a grid of 4x4 to 6x6" in caplog.text
    assert load_checkpoint(tmp_path / "classifier.pth")["model"]["pos_embed"].shape == (1, 36, 128)


def test_fashion_mnist_and_a_share_of_its_labels(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 200), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = generator.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (tmp_path / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    flags = dict(k=5, label_fraction=0.05)
    knn.main(knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out", **flags))
    assert result(tmp_path / "out", "knn")["training_images"] == 10
    assert result(tmp_path / "out", "knn")["images"] == 20
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    flipped = whole[:12] + bytes([whole[12] ^ 255]) + whole[13:]
    for damaged in (flipped, whole[:-9], b"", b"no gzip", gzip.compress(b"")):
        labels.write_bytes(damaged)
        message = r"t10k-labels-idx1-ubyte\.gz is not a complete IDX file: "
        fails(knn, message, knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out"))
    labels.write_bytes(gzip.compress(gzip.decompress(whole)[:-1] + b"\n"))
    fails(knn, "has the val label 10, but", knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out"))
    labels.unlink()
    with pytest.raises(SystemExit, match=r"There is no t10k-labels-idx1-ubyte or .* package dataset-fashion-mnist"):
        knn.main(knn_arguments(f"fashion_mnist:{tmp_path}", tmp_path / "out"))


def test_a_file_of_another_number_of_classes(data, reference_names, tmp_path):
    """Shaped like the published fine-tuned one, which has 1000."""
    published = tmp_path / "published.pth"
    save_atomically({"model": scaled(reference_names["convvit_base_classifier"])}, published)
    flags = arguments(data, tmp_path, model="convvit_base_patch16", in_chans=3, init_weights=published)
    fails(finetune, r"published\.pth classifies 1000 classes, but .* has 3", [*flags, "--eval"])


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        (finetune, dict(data_path="nowhere"), "There is no data at nowhere"),
        (finetune, dict(model="vit"), "There is no model 'vit'; choose one of convvit_tiny_patch8"),
        (finetune, dict(batch_size=3), "--batch_size must be even, got 3"),
        (finetune, dict(batch_size=64), "12 images give no optimizer step"),
        (finetune, dict(label_fraction=2.0), "--label_fraction must be above 0 and at most 1, got 2.0"),
        (finetune, dict(val_split="test"), "There is no folder .*test: classification needs"),
        (finetune, dict(eval="True"), "--eval needs the file to evaluate"),
        (finetune, dict(aa="bogus"), "--aa bogus is not an augmentation policy"),
        (finetune, dict(smoothing=1), "--smoothing must be at least 0 and below 1, got 1.0"),
        (finetune, dict(mixup=-1), "--mixup must be at least 0, got -1.0"),
        (finetune, dict(drop_path=1.5), "--drop_path must be at least 0 and below 1, got 1.5"),
        (finetune, dict(device="gpu"), "--device gpu is not a device; pass cuda or cpu"),
        (finetune, dict(input_size=0), r"--input_size must be at least 1, got \[0, 0\]"),
        (finetune, dict(layer_decay=0), "--layer_decay must be above 0, got 0.0"),
        (finetune, dict(max_steps=-1), "--max_steps must be at least 0, got -1"),
        (finetune, dict(crop_pct=0), "--crop_pct must be above 0 and at most 1, got 0.0"),
        (linprobe, dict(crop_min=2), "--crop_min must be at least 0 and at most 1, got 2.0"),
        (knn, dict(crop_pct=1.5), "--crop_pct must be above 0 and at most 1, got 1.5"),
        (knn, dict(temperature="nan"), "--temperature must be above 0, got nan"),
        (knn, dict(seed=-1), r"--seed must be at least 0 and below 2\*\*31, got -1"),
        (knn, dict(num_workers=-1), "--num_workers must be at least 0, got -1"),
        (finetune, dict(shard_window=2), "--shard_window 2 is an order of reading tar files, and these images are in"),
        (
            linprobe,
            {"no-augment": "True", "shard_window": 2},
            "reads images once, in their own order; leave out",
        ),
        (linprobe, dict(weight_decay=0.1), "runs without weight decay, got --weight_decay 0.1"),
    ],
)
def test_mistakes_get_one_clear_message(data, tmp_path, command, overrides, message):
    flags = knn_arguments if command is knn else arguments
    fails(command, message, flags(data, tmp_path / "out", **overrides))
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_output_folder(data, tmp_path):
    (tmp_path / "file").touch()
    fails(knn, "File exists: .*file", knn_arguments(data, tmp_path / "file"))
    fails(finetune, "Not a directory: .*file|File exists: .*file", arguments(data, tmp_path / "file"))


def test_more_processes_than_images(data):
    with pytest.raises(ValueError, match="9 images cannot be shared by 10 processes; start fewer"):
        extract_features(torch.nn.Identity(), range(9), 1, 0, World(size=10), torch.device("cpu"), None)


def test_mistaken_data(data, tmp_path):
    def broken(name, change):
        copy = shutil.copytree(data, tmp_path / name)
        change(copy)
        return arguments(copy, tmp_path / "out")

    def flatten(root):
        for path in list((root / "val").glob("*/*.png")):
            path.rename(root / "val" / f"{path.parent.name}{path.name}")

    def empty(root):
        for split in ("train", "val"):
            (root / split / "aempty").mkdir()

    def nest(root):
        for path in list(root.glob("*/*/*.png")):
            (path.parent / "images").mkdir(exist_ok=True)
            path.rename(path.parent / "images" / path.name)

    broken("n", nest)
    fails(knn, "such as bright/images: an image's class", knn_arguments(tmp_path / "n", tmp_path))
    fails(finetune, r"val holds 9 image\(s\) outside of class folders, so their labels", broken("f", flatten))
    fails(finetune, r"aempty in .*train hold\(s\) no image", broken("e", empty))
    fails(finetune, "lack the class\\(es\\) dark", broken("l", lambda root: shutil.rmtree(root / "val" / "dark")))
    fails(finetune, "There is no folder .*val: class", broken("v", lambda root: shutil.rmtree(root / "val")))
    unreadable = broken("c", lambda root: (root / "val" / "dark" / "0.png").write_text("no image"))
    fails(finetune, r"None of 1 image\(s\) from .*0\.png on can be read", unreadable)
    fails(knn, "--k 20 neighbours cannot be found among 12", knn_arguments(data, tmp_path, k=20))


def test_changed_recipe_applies_to_a_resumed_run(data, tmp_path, caplog):
    start = arguments(data, tmp_path, max_steps=3, lr=2e-3)
    finetune.main(start)
    resumed = dict(resume="auto", max_steps=4, lr=None)
    finetune.main(arguments(data, tmp_path, **resumed, weight_decay=0.3, layer_decay=0.9))
    assert "Resuming with --weight_decay 0.3 where the run had 0.05" in caplog.text
    assert "which follows from --blr, where the run had 0.002; --lr 0.002 keeps that" in caplog.text
    groups = load_checkpoint(tmp_path / "checkpoint-00000004.pth")["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    assert sorted({group["lr_scale"] for group in groups})[-2] == pytest.approx(0.9)


def test_checkpoints_of_other_data_or_another_kind_of_run(data, tmp_path):
    finetune.main(arguments(data, tmp_path / "run", max_steps=1))
    checkpoint = tmp_path / "run" / "checkpoint-00000001.pth"

    def flags(path=data, **overrides):
        return arguments(path, tmp_path / "out", resume=checkpoint, **overrides)

    fails(linprobe, r"another kind of run than pretrain\.linprobe; resume it with the command", flags())
    fails(finetune, "in the middle of an epoch of 12 images, but there are 6 now", flags(label_fraction=0.5))
    fewer = shutil.copytree(data, tmp_path / "fewer")
    for split in ("train", "val"):
        shutil.rmtree(fewer / split / "dark")
    fails(finetune, "(of 12 images, but there are 8 now)", flags(fewer))
    finetune.main(arguments(data, tmp_path / "whole", epochs=1))
    checkpoint = tmp_path / "whole" / "checkpoint-00000003.pth"
    fails(finetune, "has other classes than .*fewer; give the same data", flags(fewer))


def test_mistaken_weights(data, pretrained, finetuned, tmp_path):
    def flags(**overrides):
        return arguments(data, tmp_path / "out", **overrides)

    classifier, checkpoint = finetuned / "classifier.pth", finetuned / "checkpoint-00000006.pth"
    wide = flags(init_weights=pretrained, model="convvit_small_patch16", in_chans=3)
    fails(finetune, r"encoder\.pth holds a ConvViT-tiny .* but the model is a ConvViT-S", wide)
    fails(finetune, r"for 1 channel\(s\), but .* for 3", flags(init_weights=pretrained, in_chans=3))
    fails(finetune, "is of a run with --model convvit_tiny", flags(resume=checkpoint, model="convvit_tiny_patch8"))
    fails(finetune, "has no classification head", [*flags(init_weights=pretrained), "--eval"])
    evaluated = [*flags(init_weights=classifier), "--eval"]
    fails(finetune, "classify the mean token; evaluate it with --global_pool", [*evaluated, "--cls_token"])
    fails(linprobe, r"has a classifier's head .* pretrain\.finetune", evaluated)
    renamed = shutil.copytree(data, tmp_path / "renamed")
    for split in ("train", "val"):
        (renamed / split / "dark").rename(renamed / split / "obscure")
    other = arguments(renamed, tmp_path / "out", init_weights=classifier)
    fails(finetune, "class 1 is 'dark' in the file and 'obscure' in the data", [*other, "--eval"])
