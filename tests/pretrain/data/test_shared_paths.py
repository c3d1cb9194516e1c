"""Lists of files in arrays: the same elements, and no memory of its own in a worker that reads them."""

import os
import pickle

import pytest

from pretrain.data.readers import open_reader
from pretrain.data.shared_paths import LabelledPaths, SharedPaths

NAMES = ["a/b.jpg", "a/ä ö.png", os.fsdecode(b"a/\xff\xfe.jpg"), "a/a very much longer name than the others.jpeg"]
SAMPLES = [(name, 3 * i) for i, name in enumerate(NAMES)]


@pytest.mark.parametrize(("shared", "expected"), [(SharedPaths(NAMES), NAMES), (LabelledPaths(SAMPLES), SAMPLES)])
def test_read_like_lists(shared, expected):
    for sequence in (shared, pickle.loads(pickle.dumps(shared))):
        assert list(sequence) == expected and len(sequence) == len(expected)
        assert sequence[-1] == expected[-1] and sequence[1:3] == expected[1:3] and expected[2] in sequence
        with pytest.raises(IndexError):
            sequence[len(expected)]


def test_none_at_all():
    assert list(SharedPaths([])) == [] and list(LabelledPaths([])) == []


def test_a_long_path_costs_no_more_than_its_length():
    paths = [f"/data/{i:05d}.jpg" for i in range(1000)]
    pickled = pickle.dumps(SharedPaths([*paths, "/x" * 2000]))
    assert len(pickled) < len("".join(paths)) + 4000 + 8 * len(paths) + 1000


def private_bytes() -> int:
    with open("/proc/self/smaps_rollup") as file:
        return sum(1024 * int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))


def growth_in_a_worker(samples) -> int:
    """Bytes that a forked process gets by reading all samples."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        before = private_bytes()
        for i in range(len(samples)):
            len(samples[i][0])
        os.write(writing, str(private_bytes() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    grown = int(os.read(reading, 100))
    os.close(reading), os.close(writing)
    return grown


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_workers_share_them():
    samples = [(f"/data/imagenet/train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG", i % 1000) for i in range(50_000)]
    listed, shared = growth_in_a_worker(samples), growth_in_a_worker(LabelledPaths(samples))
    assert listed > 5e6 and shared < 0.1 * listed


def test_readers_of_folders_have_them(tmp_path):
    for name in ("x/a.png", "y/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    reader = open_reader(str(tmp_path))
    assert isinstance(reader.samples, LabelledPaths)
    assert [reader.filename(i) for i in range(2)] == ["x/a.png", "y/b.png"]
    assert [reader[i][1] for i in range(2)] == reader.samples.labels.tolist() == [0, 1]
