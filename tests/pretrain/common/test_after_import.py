"""A module that follows another one."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from pretrain.common.after_import import import_after


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """`modules(first=code)` writes the modules first_one and then_one; the second notes that it ran, in the first."""
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)

    def write(first: str = "ran = []") -> None:
        (tmp_path / "first_one.py").write_text(first)
        (tmp_path / "then_one.py").write_text("import first_one\nfirst_one.ran.append(first_one.__spec__.name)")
        importlib.invalidate_caches()

    yield write
    sys.meta_path[:] = finders
    for name in ("first_one", "then_one"):
        sys.modules.pop(name, None)


def test_it_follows_once_when_the_first_is_imported(modules):
    modules()
    finders = list(sys.meta_path)
    import_after("first_one", "then_one")
    assert importlib.util.find_spec("first_one") and "first_one" not in sys.modules  # a look is no import
    assert importlib.import_module("first_one").ran == ["first_one"]
    assert sys.meta_path == finders
    assert importlib.reload(sys.modules["first_one"]).ran == []


def test_it_comes_at_once_where_the_first_is_there(modules):
    modules()
    first = importlib.import_module("first_one")
    import_after("first_one", "then_one")
    assert first.ran == ["first_one"]


def test_an_import_that_fails_may_be_tried_again(modules):
    import_after("first_one", "then_one")
    with pytest.raises(ModuleNotFoundError, match="first_one"):
        importlib.import_module("first_one")
    modules("1 / 0")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("first_one")
    modules("ran = []  # mended")
    assert importlib.import_module("first_one").ran == ["first_one"]


def test_models_register_with_timm_though_timm_is_imported_on_their_way():
    code = (
        "import sys, pretrain\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
        "from pretrain.models import ConvViT\n"
        "import timm\n"
        "assert type(timm.create_model('convvit_tiny_patch8_32', num_classes=2)) is ConvViT\n"
        "assert 'convvitv2_base_patch16' in timm.list_models(module='timm_registry')\n"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
