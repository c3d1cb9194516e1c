"""What tools/export_model.py refuses before it loads anything, and where it finds its overrides."""

import pytest
from scripts import load_tool

from pretrain.common.errors import UserError

TOOL = load_tool("export_model")
WHOLE = ["--config-file", "a.py", "--weights", "a.pth", "--output", "a.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp16", "--quantize", "int8"], "two ways to a smaller file"),
        (["--calibration", "photos"], "--calibration is for --quantize int8"),
        (["--annotations", "val.json"], "those of the images of --compare"),
        (["--pyramid", "--precision", "fp16"], "for whole models"),
        (["--pyramid", "--quantize", "int8"], "for whole models"),
    ],
)
def test_options_that_do_not_go_together(arguments, message):
    with pytest.raises(UserError, match=message):
        TOOL.check_arguments(TOOL.parse_args([*WHOLE, *arguments]))


def test_overrides_among_images(tmp_path):
    args = TOOL.parse_args(
        [*WHOLE, "--quantize", "int8", "--calibration", "a", "data.image_size=224", "--compare", "b", "c=1"]
    )
    assert (args.calibration, args.compare) == (["a"], ["b"])
    assert sorted(args.opts) == ["c=1", "data.image_size=224"]


def test_precision_and_calibration_images(tmp_path):
    (tmp_path / "a.png").touch()
    args = TOOL.parse_args([*WHOLE, "--quantize", "int8", "--calibration", str(tmp_path)])
    assert TOOL.precision_of(args) == {"precision": "int8", "calibration": [tmp_path / "a.png"]}
    assert TOOL.precision_of(TOOL.parse_args(WHOLE)) == {"precision": "fp32", "calibration": None}
    with pytest.raises(UserError, match="holds no images"):
        (tmp_path / "a.png").unlink()
        TOOL.precision_of(args)


def test_images_that_cannot_be_compared_are_told_of_before_the_export(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    args = TOOL.parse_args([*WHOLE, "--compare", str(tmp_path)])
    with pytest.raises(UserError, match=r"a\.png"):
        TOOL.images_to_compare(args)
    assert len(TOOL.images_to_compare(TOOL.parse_args(WHOLE))) == 2
