"""Every golden file says where it comes from."""

import re

from parity import GOLDEN, Golden

README = (GOLDEN / "README.md").read_text()
FILES = {path.stem for path in GOLDEN.glob("*.safetensors")}


def test_every_file_is_described_and_every_description_has_its_file():
    source, holds = README.split("**Keys.**")
    in_sources = re.findall(r"`(\w+_tiny)`", source)
    in_table = re.findall(r"^\| `(\w+)` \|", holds, re.MULTILINE)
    assert sorted(in_sources) == sorted(in_table) == sorted(FILES)
    assert "reference_names.json" in README


def test_the_tests_named_there_read_the_files():
    for name, test in re.findall(r"^\| `(\w+)` .*\| `(tests/\S+\.py)` \|$", README, re.MULTILINE):
        assert name in (GOLDEN.parents[1] / test).read_text(), f"{test} does not read {name}"


def test_every_file_holds_its_constructor_s_arguments_and_weights():
    for name in FILES:
        golden = Golden(name)
        assert golden.config["embed_dim"]
        assert any(key.startswith("param") for key in golden.tensors)
        assert any(key.startswith("output") for key in golden.tensors)
