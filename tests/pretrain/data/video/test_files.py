"""Frames come out of files in the right number and order, whatever the container tells of them."""

import numpy as np
import pytest
from clips import corner_of, number_of, numbered, turn, write_at_times, write_numbered
from PIL import Image

from pretrain.data.video.files import open_video, write_video

pytest.importorskip("av")


def numbers(path, indices, in_chans=3):
    with open_video(path) as video:
        return [number_of(frame) for frame in video.read(indices, in_chans)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.webm"])
def test_any_frame_of_any_container(tmp_path, name):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = write_numbered(tmp_path / name, 30, codec=codec)
    with open_video(path) as video:
        assert (video.num_frames, video.is_variable, video.is_rotated) == (30, False, False)
    assert numbers(path, list(range(30))) == list(range(30))
    assert numbers(path, [25, 3, 3, 29, 0]) == [25, 3, 3, 29, 0]
    assert numbers(path, [17], in_chans=1) == [17]


def test_a_late_frame_is_found_from_its_key_frame(tmp_path, monkeypatch):
    """Decoding begins at the key frame before the first frame that is wanted."""
    import av

    frames = np.concatenate([numbered(10)] * 10)
    write_video(frames, tmp_path / "a.mp4", codec="mpeg4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [p.pts for p in container.demux(video=0) if p.size and p.is_keyframe]
    with open_video(tmp_path / "a.mp4") as video:
        decoded = []
        monkeypatch.setattr(video, "_pixels", lambda frame, _: decoded.append(frame) or np.zeros((1, 1, 3)))
        starts = []
        monkeypatch.setattr(video, "container", Decoding(video.container, starts))
        video.read([97, 98], 3)
    assert len(decoded) == 2 and starts == [max(k for k in keys if k <= decoded[0].pts)] and starts[0] > 0


class Decoding:
    """A container that notes the time of the first frame it decodes."""

    def __init__(self, container, starts):
        self.container, self.starts, self.seek = container, starts, container.seek

    def decode(self, stream):
        frames = self.container.decode(stream)
        first = next(frames)
        self.starts.append(first.pts)
        yield first
        yield from frames


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, 1)), (180, (1, 1)), (270, (1, 0))])
def test_turned_pictures(tmp_path, degrees, corner):
    path = turn(write_numbered(tmp_path / "a.mp4", 4), degrees)
    with open_video(path) as video:
        frame = video.read([2], 3)[0]
        assert video.is_rotated
    assert corner_of(frame) == corner and number_of(frame) == 2


def test_variable_rate_is_taken_at_even_times(tmp_path):
    """Ten frames within 0.9 s and ten within 9 s: evenly spaced times are mostly in the second half."""
    path = write_at_times(tmp_path / "a.mkv", [*range(0, 1000, 100), *range(1000, 11000, 1000)])
    with open_video(path) as video:
        assert video.num_frames == 20 and video.is_variable
    assert numbers(path, range(20)) == [0, 5, *(10 + i * 10 // 19 - 1 for i in range(2, 20))]


def test_folders_of_frames(tmp_path):
    for i, pixels in enumerate(numbered(12)):
        Image.fromarray(pixels).save(tmp_path / f"img_{i + 1}.png")
    (tmp_path / "notes.txt").touch()
    with open_video(tmp_path) as video:
        assert video.num_frames == 12
        assert [number_of(frame) for frame in video.read([10, 1, 1], 3)] == [10, 1, 1]
        assert video.read([0], 1).shape == (1, 32, 32, 1)


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "audio"])
def test_damaged_files(tmp_path, damage):
    import av

    path = write_numbered(tmp_path / "a.mp4", 30)
    content = {"text": b"no video\n", "empty": b"", "truncated": path.read_bytes()[:600]}
    if damage == "audio":
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
    else:
        path.write_bytes(content[damage])
    with pytest.raises((OSError, ValueError)), open_video(path) as video:
        video.read([0], 3)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder is a folder without frames"), open_video(tmp_path / "folder"):
        pass


def test_the_same_frames_give_the_same_file(tmp_path):
    a, b = (write_numbered(tmp_path / name, 12).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert a == b
