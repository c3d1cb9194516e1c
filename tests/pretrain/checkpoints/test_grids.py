"""A file's grid of positions is known or refused, never guessed: 36 positions may be 6x6, 4x9 or 9x4."""

import argparse

import pytest
import torch

from pretrain.checkpoints.classifier_weights import load_trunk
from pretrain.checkpoints.convert import Target, convert
from pretrain.checkpoints.grids import GRID_KEY, file_grid, grid_text
from pretrain.checkpoints.recognition import recognise
from pretrain.common.errors import UserError
from pretrain.common.files import save_weights
from pretrain.models import ConvViT, MaskedAutoencoderConvViT
from pretrain.models.pos_embed import resize_pos_embed, sincos_pos_embed

SIZES = dict(embed_dim=(8, 8, 16), depth=(1, 1, 1), num_heads=2)
GRIDS = ((4, 9), (9, 4), (6, 6))
LEARNED = torch.randn(1, 36, 16, generator=torch.Generator().manual_seed(0))


def autoencoder(grid: tuple[int, int]) -> dict[str, torch.Tensor]:
    size = (16 * grid[0], 16 * grid[1])
    decoder = dict(decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)
    return MaskedAutoencoderConvViT(img_size=size, **SIZES, **decoder).state_dict()


def classifier(grid: tuple[int, int]) -> dict[str, torch.Tensor]:
    """With learned positions, which do not tell their grid."""
    state = ConvViT(img_size=(16 * grid[0], 16 * grid[1]), num_classes=3, **SIZES).state_dict()
    return state | {"pos_embed": LEARNED}


def args_of(grid: tuple[int, int]) -> dict:
    return {"input_size": [16 * grid[0], 16 * grid[1]], "patch_size": [4, 2, 2]}


@pytest.mark.parametrize("grid", GRIDS, ids=grid_text)
@pytest.mark.parametrize("knows", ["its arguments", "a namespace", "its table"])
def test_pretraining_to_detection_keeps_places(grid, knows):
    """The places of the image, not the numbers in a row: each position of the square is the resized 4x9 table's."""
    content = {"model": autoencoder(grid)}
    if knows != "its table":
        args = args_of(grid)
        content["args"] = args if knows == "its arguments" else argparse.Namespace(**args)
    state, report = convert(recognise(content), Target.DETECTION)
    ours = state["backbone.net.pos_embed"]
    table = sincos_pos_embed(16, grid)
    torch.testing.assert_close(ours, resize_pos_embed(table, grid, (6, 6)), rtol=0, atol=0)
    if grid != (6, 6):
        assert report.resized["backbone.net.pos_embed"].endswith(f"grid {grid_text(grid)} resized to 6x6")
        wrong = resize_pos_embed(table, (6, 6), (6, 6))
        assert (ours - wrong).abs().max() > 0.1
    # By channel, columns come first: the first channel's sine grows along the row of the image.
    columns = ours.view(6, 6, 16)[:, :, 4]  # the cosine of the column
    assert (columns - columns[:1]).abs().max() < 0.2


@pytest.mark.parametrize("grid", GRIDS, ids=grid_text)
def test_the_size_that_was_pretrained_for_is_an_integer_in_published_files(grid):
    content = {"model": autoencoder((6, 6)), "args": argparse.Namespace(input_size=96, model="convmae")}
    assert recognise(content).grid(sincos_pos_embed(16, (6, 6))) == ((6, 6), False)
    # Arguments that do not fit the number of positions are those of something else.
    assert file_grid(sincos_pos_embed(16, grid), (4, 2, 2), {"args": {"input_size": 224}}, False) == (grid, False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grid", [*GRIDS, (1, 7), (7, 1), (3, 12)], ids=grid_text)
def test_the_table_decides_in_half_precision_and_against_the_arguments(grid, dtype):
    table = sincos_pos_embed(16, grid).to(dtype)
    assert file_grid(table, (16,), {"args": args_of((6, 6))}, may_have_slot=False) == (grid, False)


def test_a_slot_before_an_oblong_grid():
    positions = torch.cat([torch.zeros(1, 1, 16), sincos_pos_embed(16, (4, 9))], dim=1)
    assert file_grid(positions, (16,), {}, may_have_slot=True) == ((4, 9), True)
    assert file_grid(torch.randn(1, 37, 16), (16,), {"args": args_of((4, 9))}, may_have_slot=True) == ((4, 9), True)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_text)
def test_converted_files_say_their_grid(grid, suffix, tmp_path):
    """Learned positions: pretraining's arguments are gone after a conversion, so the converter writes the grid."""
    content = {"model": classifier(grid), "args": args_of(grid)}
    state, report = convert(recognise(content), Target.PRETRAIN)
    path = tmp_path / f"trunk{suffix}"
    save_weights(state, path, {GRID_KEY: report.grid} if report.grid else {})
    assert (report.grid is None) == (grid == (6, 6))
    model = ConvViT(img_size=(64, 144), num_classes=0, **SIZES)
    load_trunk(model, path)
    torch.testing.assert_close(model.pos_embed.data, resize_pos_embed(LEARNED, grid, (4, 9)), rtol=0, atol=0)


def test_a_number_of_positions_that_is_no_square_needs_its_grid(tmp_path):
    state = classifier((4, 9)) | {"pos_embed": torch.randn(1, 50, 16)}
    with pytest.raises(UserError, match=r"50 positions is not a square grid.*add it to the file as pos_embed_grid="):
        convert(recognise(state), Target.DETECTION)
    known, _ = convert(recognise({"model": state, GRID_KEY: "5x10"}), Target.DETECTION)
    assert known["backbone.net.pos_embed"].shape == (1, 49, 16)
    save_weights(state, tmp_path / "trunk.pth")
    with pytest.raises(UserError, match="50 positions is not a square grid"):
        load_trunk(ConvViT(img_size=112, num_classes=0, **SIZES), tmp_path / "trunk.pth")


@pytest.mark.parametrize("note", ["5x7", "x", "-4x-9", "4 x 9", "4x9x1"])
def test_a_note_that_is_no_grid_of_the_positions_is_refused(note):
    with pytest.raises(UserError, match="is not a grid of 36 positions; it must be ROWSxCOLUMNS"):
        file_grid(LEARNED, (16,), {GRID_KEY: note}, may_have_slot=False)


def test_a_converted_classifier_is_recognised_and_starts_fine_tuning(tmp_path):
    content = {"model": autoencoder((4, 9)), "args": args_of((4, 9))}
    state, report = convert(recognise(content), Target.CLASSIFIER)
    save_weights(state, tmp_path / "classifier.pth", {GRID_KEY: report.grid})
    assert recognise(tmp_path / "classifier.pth").kind.name == "ConvViT classifier without its head"
    model = ConvViT(img_size=(64, 144), num_classes=3, **SIZES)
    load_trunk(model, tmp_path / "classifier.pth")
    assert torch.equal(model.pos_embed.data, sincos_pos_embed(16, (4, 9)))
    detector, _ = convert(recognise(tmp_path / "classifier.pth"), Target.DETECTION)
    assert detector["backbone.net.pos_embed"].shape == (1, 36, 16)
