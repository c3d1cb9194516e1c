"""Moving shapes: the class is the motion and nothing else, and the seed decides everything."""

import importlib.util

import numpy as np
import pytest
from parity import REPO

from pretrain.data.video.files import open_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_moving_shapes", REPO / "datasets" / "make_moving_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("plain", [False, True])
def test_first_frames_tell_nothing(generator, plain):
    """A scene begins with the same frame whatever its class, and goes on differently in each."""
    videos = {name: generator.Scene(np.random.default_rng(3), 32, plain).video(name, 3) for name in generator.CLASSES}
    first = videos["left"][0]
    assert all(np.array_equal(frames[0], first) for frames in videos.values())
    later = [frames[2] for frames in videos.values()]
    assert all(not np.array_equal(a, b) for i, a in enumerate(later) for b in later[:i])


def test_classes_are_what_they_say(generator):
    scene = generator.Scene(np.random.default_rng(0), 48, plain=False)
    scene.background[:] = 0
    scene.shapes = scene.shapes[:1]
    scene.shapes[0] |= {"place": np.array([24.0, 24.0]), "colour": np.array([255, 255, 255]), "speed": 3.0, "turn": 9.0}

    def centre(frame):
        return np.array([np.average(np.arange(48), weights=frame[..., 0].sum(axis)) for axis in (0, 1)])

    moves = {
        name: centre(frames[2]) - centre(frames[0]) for name in generator.CLASSES for frames in [scene.video(name, 3)]
    }
    for name, (x, y) in generator.DIRECTIONS.items():
        np.testing.assert_allclose(moves[name], (6 * x, 6 * y), atol=0.5)
    # What turns one way and then the other is back where it was.
    turned = scene.video("clockwise", 3)
    scene.shapes[0]["angle"] += 18
    back = scene.video("anticlockwise", 3)
    assert np.array_equal(turned[2], back[0]) and np.array_equal(turned[0], back[2])


def test_plain_scenes_are_light_shapes_on_one_dark_background(generator):
    scene = generator.Scene(np.random.default_rng(2), 32, plain=True)
    frame = scene.video("left", 1)[0]
    assert 2 <= len(scene.shapes) <= 4
    assert frame.min() == generator.DARK and frame.max() == generator.LIGHT
    assert (frame == generator.DARK).all(-1).mean() > 0.2 and np.ptp(frame, axis=-1).max() == 0


def test_shapes_come_back_at_the_other_side(generator):
    scene = generator.Scene(np.random.default_rng(1), 32, plain=True)
    for shape in scene.shapes:
        shape["speed"] = 4.0
    frames = scene.video("right", 9)
    assert np.array_equal(frames[8], frames[0]) and not np.array_equal(frames[4], frames[0])


def test_the_seed_decides_everything(generator, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generator.main([str(tmp_path / name), *f"--train 1 --val 1 --size 32 --frames 4 --seed {seed}".split()])
    a, b, c = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.mp4")} for n in "abc")
    assert len(a) == 12 and a == b and a.keys() == c.keys() and all(a[p] != c[p] for p in a)
    with open_video(tmp_path / "a" / "train" / "up" / "0000.mp4") as video:
        assert video.num_frames == 4
    with pytest.raises(SystemExit):
        generator.main([str(tmp_path / "a")])
    with pytest.raises(SystemExit):
        generator.main([str(tmp_path / "d"), "--size", "33"])
