"""The demo's own steps; the commands it runs have tests of their own."""

import importlib.util

import pytest
from shapes import REPO


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", REPO / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_replaces_its_own_folder_and_no_other(demo, tmp_path):
    folder = demo.empty_folder(tmp_path / "demo")
    (folder / "old.txt").touch()
    assert [p.name for p in demo.empty_folder(folder).iterdir()] == [demo.MARKER]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(SystemExit, match="holds files that are not of a demo"):
        demo.empty_folder(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_failing_step_ends_the_demo(demo):
    with pytest.raises(SystemExit, match="the step 'Fail' failed with exit code 3"):
        demo.step("Fail", "-c", "import sys; sys.exit(3)")


def test_last_evaluation(demo, tmp_path):
    (tmp_path / "metrics.json").write_text('{"bbox/AP50": 1}\n{"bbox/AP50": 2}\n{"total_loss": 3}\n')
    assert demo.last_metrics(tmp_path / "metrics.json") == {"bbox/AP50": 2}


def test_comparison_with_random_weights_is_of_the_same_schedule(demo):
    metrics = {"bbox/AP": 61.25, "bbox/AP50": 81.25}
    text = demo.comparison(metrics, demo.EPOCHS, demo.IMAGES, overridden=False)
    assert "with pretraining:    box AP 61.2, AP50 81.2\n" in text
    assert f"without pretraining: box AP {demo.WITHOUT_PRETRAINING['bbox/AP']:.1f}" in text
    assert not demo.comparison(metrics, 0, demo.IMAGES, overridden=False)
    assert not demo.comparison(metrics, demo.EPOCHS, 100, overridden=False)
    assert not demo.comparison(metrics, demo.EPOCHS, demo.IMAGES, overridden=True)
