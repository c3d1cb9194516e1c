"""Image weights in video models: the same features for one repeated frame, and every tensor accounted for."""

import pytest
import torch
from parity import relative_error
from scripts import load_tool

from pretrain.checkpoints.classifier_weights import load_classifier, load_trunk
from pretrain.checkpoints.convert import Target, convert
from pretrain.checkpoints.inflation import ClipShape, inflate
from pretrain.checkpoints.recognition import recognise
from pretrain.common.files import load_checkpoint
from pretrain.models import build_model
from pretrain.training.state import initialise_model

SIZE = dict(img_size=32)
CLIP = dict(num_frames=6, **SIZE)


def image_classifier(**options):
    torch.manual_seed(0)
    return build_model("convvit_tiny_patch16", num_classes=5, **SIZE | options).eval()


def video_classifier(**options):
    torch.manual_seed(1)
    return build_model("videoconvvit_tiny_patch16", num_classes=5, **CLIP | options).eval()


def still(frames=6, size=32):
    """Images, and clips in which each of them stands still."""
    imgs = torch.randn(2, 3, size, size)
    return imgs, imgs.unsqueeze(2).expand(-1, -1, frames, -1, -1)


@pytest.mark.parametrize("conv_frames", [1, 3])
def test_a_repeated_frame_has_the_features_of_the_image(conv_frames):
    image = image_classifier()
    video = video_classifier(conv_frames=conv_frames)
    load_trunk(video, {"model": image.state_dict()})
    imgs, clips = still()
    expected = image.forward_features(imgs)
    slots = video.forward_features(clips).unflatten(1, (3, -1))
    for slot in range(3):
        assert relative_error(slots[:, slot], expected) <= 1e-5
    ours = video.forward_head(video.forward_features(clips), pre_logits=True)
    assert relative_error(ours, image.forward_head(expected, pre_logits=True)) <= 1e-5


@pytest.mark.parametrize("conv_frames", [1, 3])
def test_so_does_the_encoder_in_pretraining(conv_frames):
    image = build_model("convmae_convvit_tiny_patch16", **SIZE)
    video = build_model("videoconvmae_convvit_tiny_patch16", conv_frames=conv_frames, **CLIP)
    state, report = inflate(recognise(image.state_dict()), Target.PRETRAIN, ClipShape.of(video))
    video.load_state_dict(state, strict=False)  # positions with a zero temporal part
    imgs, clips = still()
    noise = torch.rand(2, 4)
    latent = video.forward_encoder(clips, 0.5, noise)[0].unflatten(1, (3, -1))
    expected = image.forward_encoder(imgs, 0.5, noise)[0]
    for slot in range(3):
        assert relative_error(latent[:, slot], expected) <= 1e-5
    text = str(report)
    assert "spread over 2 frames" in text and "grid 2x2 repeated in 3 time slots" in text
    assert ("the middle of 3x5x5" in text) == (conv_frames == 3)
    assert report.dropped["mask_token"].startswith("the decoder of clips")
    assert {n.split(".")[0] for n in video.state_dict() if n not in state} == {
        *("mask_token", "decoder_pos_embed", "decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred")
    }


def test_pretraining_starts_from_images(tmp_path, caplog):
    caplog.set_level("INFO")
    image = build_model("convmae_convvit_tiny_patch16", img_size=48)
    torch.save({"model": image.state_dict()}, tmp_path / "image.pth")
    video = build_model("videoconvmae_convvit_tiny_patch16", **CLIP)
    table = video.pos_embed.clone()
    initialise_model(video, tmp_path / "image.pth")
    assert torch.equal(video.blocks3[0].attn.qkv.weight, image.blocks3[0].attn.qkv.weight)
    assert torch.equal(video.patch_embed1.proj.weight[:, :, 1], image.patch_embed1.proj.weight / 2)
    assert torch.equal(video.pos_embed, table)
    assert "target    pretrain, video" in caplog.text and "newly initialised: the decoder" in caplog.text
    plain = build_model("videoconvmae_convvit_tiny_patch16", multi_scale=False, **CLIP)
    initialise_model(plain, tmp_path / "image.pth")
    assert "not multi-scale: stage1_output_decode" in caplog.text


def test_video_pretraining_to_a_classifier_of_another_grid(tmp_path, caplog):
    caplog.set_level("INFO")
    pretrained = build_model("videoconvmae_convvit_tiny_patch16", **CLIP)
    args = dict(input_size=[32, 32], num_frames=6)
    content = {"model": pretrained.state_dict(), "args": args}
    video = video_classifier(img_size=(32, 48), num_frames=4)
    load_trunk(video, content)
    assert "pos_embed resized from a grid of 3x2x2 to 2x2x3" in caplog.text
    assert torch.equal(video.blocks1[0].attn.weight, pretrained.blocks1[0].attn.weight)
    fixed = video_classifier(positions="fixed", num_frames=4)
    table = fixed.pos_embed.clone()
    load_trunk(fixed, content)
    assert torch.equal(fixed.pos_embed, table)
    with pytest.raises(ValueError, match="does not say which slots, rows and columns its 12 positions are"):
        load_trunk(video_classifier(num_frames=4), {"model": pretrained.state_dict()})
    load_trunk(video_classifier(), {"model": pretrained.state_dict()})


def test_kinds_do_not_mix(tmp_path):
    video, image = video_classifier(), image_classifier()
    with pytest.raises(ValueError, match="but the model is a ConvViT-tiny"):
        load_trunk(image, {"model": video.state_dict()})
    with pytest.raises(ValueError, match=r"kernels 1x5x5.*but the model is a .*kernels 3x5x5.*--conv_frames"):
        load_trunk(video_classifier(conv_frames=3), {"model": video.state_dict()})
    with pytest.raises(ValueError, match="VideoConvViT classifier, and there is no detection in clips"):
        convert(recognise(video.state_dict()), Target.DETECTION)
    with pytest.raises(ValueError, match=r"VideoConvViT classifier.* cannot be inflated"):
        inflate(recognise(video.state_dict()), Target.CLASSIFIER, ClipShape())
    torch.save({"model": video.state_dict()}, tmp_path / "video.pth")
    again = video_classifier()
    torch.nn.init.zeros_(again.head.weight)
    load_classifier(again, tmp_path / "video.pth")
    assert torch.equal(again.head.weight, video.head.weight)


def test_the_converter_inflates(tmp_path, capsys):
    tool = load_tool("convert_checkpoint")
    torch.save({"model": build_model("convmae_convvit_tiny_patch16", **SIZE).state_dict()}, tmp_path / "image.pth")
    flags = ["--to", "classifier", "--num_frames", "6", "--conv_frames", "3"]
    tool.main([str(tmp_path / "image.pth"), str(tmp_path / "video.pth"), *flags])
    out = capsys.readouterr().out
    assert "target    classifier, video" in out and "stage1_output_decode" in out
    assert load_checkpoint(tmp_path / "video.pth")["pos_embed_grid"] == "3x2x2"
    load_trunk(video_classifier(conv_frames=3, num_frames=4), tmp_path / "video.pth")
    tool.main([str(tmp_path / "video.pth"), str(tmp_path / "again.pth"), "--to", "classifier"])
    assert load_checkpoint(tmp_path / "again.pth")["pos_embed_grid"] == "3x2x2"
    with pytest.raises(SystemExit, match="num_frames 5 is not a multiple of tubelet_size 2"):
        tool.main([str(tmp_path / "image.pth"), str(tmp_path / "x.pth"), "--to", "classifier", "--num_frames", "5"])
    assert not (tmp_path / "x.pth").exists()
