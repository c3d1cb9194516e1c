"""The converter's command line."""

import importlib.util
import os
import subprocess
import sys

import preloaded
import pytest
import torch
from parity import REPO
from published import mae_vit, pretraining_file, scaled
from safetensors.torch import load_file

from pretrain.common.files import load_checkpoint
from pretrain.models import ConvViT
from pretrain.models.pos_embed import resize_pos_embed

TOOL = REPO / "tools" / "convert_checkpoint.py"

CONFIG = """
from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from convmae_det import ConvViT

model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
model.backbone.net = L(ConvViT)(
    img_size=224,
    embed_dim=(8, 12, {embed_dim}),
    num_heads=12,
    use_rel_pos=True,
    window_size=14,
    window_block_indexes=[0, 2, 3, 5, 6, 8, 9],
    pretrain_img_size={pretrain_img_size},
    out_feature="last_feat",
)
model.backbone.out_channels = 8
model.roi_heads.box_head.conv_dims = [8]
model.roi_heads.box_head.fc_dims = [8]
model.roi_heads.mask_head.conv_dims = [8, 8]
"""


@pytest.fixture(scope="module")
def tool():
    """The tool as a module: in one process, as importing torch takes longer than converting."""
    spec = importlib.util.spec_from_file_location("convert_checkpoint", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.main([str(arg) for arg in args])


def run(*args, prelude: str = "") -> subprocess.CompletedProcess:
    """The tool in its own process, after some other statements."""
    code = f"import runpy, sys; {prelude}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code, TOOL, *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def convmae(tmp_path, reference_names):
    path = tmp_path / "convmae.pth"
    torch.save(pretraining_file(scaled(reference_names["convmae_base_pretrain"])), path)
    return path


def write_config(tmp_path, embed_dim=24, pretrain_img_size=224):
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(embed_dim=embed_dim, pretrain_img_size=pretrain_img_size))
    return path


def test_to_detection_with_a_config(tool, tmp_path, convmae, capsys):
    output = tmp_path / "detection.pth"
    tool(convmae, output, "--config", write_config(tmp_path, pretrain_img_size=128))
    said = capsys.readouterr().out
    assert "ConvMAE or FastConvMAE pretraining" in said
    assert "backbone.net.pos_embed: (1, 196, 24) -> (1, 64, 24), grid 14x14 resized to 8x8" in said
    assert "backbone.net.blocks3.* (22): relative positions are learned in detection only" in said
    assert "roi_heads.box_head.*" in said and "backbone.simfp_2.*" in said
    content = torch.load(output, weights_only=True)
    assert content.keys() == {"model", "__author__"} and len(content["model"]) == 203


def test_there_and_back_through_files(tool, tmp_path, convmae, address_of):
    detection, trunk = tmp_path / "detection.safetensors", tmp_path / "trunk.pth"
    classifier = tmp_path / "classifier.safetensors"
    tool(address_of(convmae), detection)
    tool(detection, trunk, "--to", "pretrain")
    tool(trunk, classifier, "--to", "classifier")
    before = load_checkpoint(convmae)["model"]
    after = torch.load(trunk, weights_only=True)["model"]
    assert len(after) == 203 and all(torch.equal(after[name], before[name]) for name in after)
    assert load_file(classifier).keys() == after.keys() | {"fc_norm.weight", "fc_norm.bias"}


def test_existing_output_needs_force(tool, tmp_path, convmae):
    output = tmp_path / "detection.pth"
    output.write_text("precious")
    with pytest.raises(SystemExit, match="pass --force to replace it"):
        tool(convmae, output)
    assert output.read_text() == "precious"
    tool(convmae, output, "--force")
    assert len(torch.load(output, weights_only=True)["model"]) == 203


def failing_inputs(tmp_path, convmae, reference_names):
    """Arguments that must fail, and what is said."""
    (tmp_path / "truncated.pth").write_bytes(convmae.read_bytes()[:50_000])
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    torch.save({"model": mae_vit(reference_names["mask_rcnn_vitdet_b"])}, tmp_path / "mae.pth")
    config = write_config(tmp_path, embed_dim=36)
    (tmp_path / "broken.py").write_text("model = (")
    output = tmp_path / "out" / "detection.pth"
    return [
        ((tmp_path / "truncated.pth", output), "is damaged"),
        ((tmp_path / "image.png", output), "not a PyTorch or safetensors checkpoint"),
        ((tmp_path / "model.pkl", output), "can run any code"),
        ((tmp_path / "nothing.pth", output), "does not exist"),
        ((convmae, output, "--config", config), "does not fit the model: 139 tensors differ in shape"),
        ((tmp_path / "mae.pth", output, "--config", config), "does not fit the model: the model has no"),
        ((tmp_path / "mae.pth", output, "--to", "classifier"), "plain ViT"),
        ((convmae, output, "--config", tmp_path / "no_config.py"), "no_config.py"),
        ((convmae, output, "--config", tmp_path / "broken.py"), "broken.py cannot be loaded: SyntaxError"),
        ((convmae, tmp_path / "nowhere" / "x.pth"), "there is no directory"),
        ((convmae, "/proc/x.pth"), "/proc/x.pth"),
        ((convmae, output.with_suffix(".ckpt")), "must end in .pth or .safetensors"),
    ]


def test_failures_are_one_message_and_leave_nothing(tool, tmp_path, convmae, reference_names, capsys):
    (tmp_path / "out").mkdir()
    for args, message in failing_inputs(tmp_path, convmae, reference_names):
        with pytest.raises(SystemExit) as exit_:
            tool(*args)
        assert isinstance(exit_.value.code, str) and message in exit_.value.code, exit_.value.code
        assert len(exit_.value.code.splitlines()) == 1 and capsys.readouterr().out == ""
        assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_full_disk(tmp_path, convmae, suffix):
    """A limit on the size of files stands for the disk."""
    script = tmp_path / "on_a_full_disk.py"
    script.write_text(
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    output = tmp_path / "out" / f"x{suffix}"
    output.parent.mkdir()
    done = preloaded.run([str(script), str(TOOL), str(convmae), str(output)], os.environ)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{output} could not be written" in done.stderr and done.stdout == ""
    assert os.listdir(output.parent) == []


def test_without_detectron2(tmp_path, convmae):
    no_detectron2 = "sys.modules['detectron2'] = None"
    done = run(convmae, tmp_path / "x.pth", prelude=no_detectron2)
    assert done.returncode == 0 and f"Written to {tmp_path / 'x.pth'}" in done.stdout, done.stderr
    done = run(convmae, tmp_path / "y.pth", "--config", "c.py", prelude=no_detectron2)
    assert done.returncode == 1 and "--config needs detectron2" in done.stderr
    assert not (tmp_path / "y.pth").exists()


def test_config_is_for_detection(tool, tmp_path, convmae, capsys):
    with pytest.raises(SystemExit, match="2"):
        tool(convmae, tmp_path / "x.pth", "--to", "pretrain", "--config", "c.py")
    assert "--config belongs to --to detection" in capsys.readouterr().err


SEGMENTATION = """
from detectron2.config import LazyCall as L

from convmae_seg import ConvViTSeg, Segmentor, UperHead

model = L(Segmentor)(
    backbone=L(ConvViTSeg)(img_size=512, embed_dim=(8, 12, 24), num_heads=12),
    decode_head=L(UperHead)(in_channels=(8, 12, 24, 24), num_classes=3, channels=8),
    auxiliary_head=None,
    num_classes=3,
)
"""


def test_to_the_segmentation_model_of_a_config(tool, tmp_path, convmae, capsys):
    config, output = tmp_path / "config.py", tmp_path / "segmentation.pth"
    config.write_text(SEGMENTATION)
    tool(convmae, output, "--config", config)
    said = capsys.readouterr().out
    assert "target    segmentation" in said and "grid 14x14 resized to 32x32" in said
    assert "decode_head.psp_modules.*" in said
    content = torch.load(output, weights_only=True)
    assert content.keys() == {"model"} and len(content["model"]) == 203
    with pytest.raises(SystemExit, match="The model is one for segmentation, not for detection"):
        tool(convmae, tmp_path / "other.pth", "--config", config, "--to", "detection")
    tool(convmae, tmp_path / "trunk.pth", "--to", "segmentation")
    assert load_checkpoint(tmp_path / "trunk.pth")["model"]["backbone.pos_embed"].shape == (1, 196, 24)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_learned_positions_keep_their_grid_through_two_conversions(tool, tmp_path, suffix, capsys):
    """The arguments stay behind in a conversion, the grid must not."""
    model = ConvViT(img_size=(64, 144), embed_dim=(8, 12, 24), depth=(1, 1, 1), num_heads=4, num_classes=3)
    finetuned, trunk = tmp_path / "finetuned.pth", tmp_path / f"trunk{suffix}"
    torch.save({"model": model.state_dict(), "args": {"input_size": [64, 144]}}, finetuned)
    tool(finetuned, trunk, "--to", "pretrain")
    tool(trunk, tmp_path / "detection.pth")
    assert "grid 4x9 resized to 6x6" in capsys.readouterr().out
    positions = load_checkpoint(tmp_path / "detection.pth")["model"]["backbone.net.pos_embed"]
    assert torch.equal(positions, resize_pos_embed(model.pos_embed, (4, 9), (6, 6)))
