"""What fine-tuning, linear probe and nearest neighbours say to a mistake in their arguments, data or weights."""

import shutil

import pytest
from classification_runs import arguments, fails, knn_arguments
from published import scaled

from pretrain import finetune, knn, linprobe
from pretrain.common.files import save_atomically


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
