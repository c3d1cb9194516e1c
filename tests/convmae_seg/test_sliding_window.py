"""Windows computed in pieces against the plain loop with a canvas."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from naive_segmentation import resize, slide
from torch import nn

from convmae_seg.sliding_window import SlidingWindow, View, pieces, window_starts

WINDOW, STRIDE, CLASSES = 16, 11, 3


class Network(nn.Module):
    """Logits at a quarter of the resolution that depend on the whole window; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 4, stride=4)
        self.seen, self.batches = [], []

    def forward(self, x):
        self.seen += list(x)
        self.batches.append(len(x))
        return self.conv(x) + x.mean((2, 3), keepdim=True)


@pytest.fixture(scope="module")
def network():
    return Network().requires_grad_(False)


def run(network, image, size, settings, flip=False) -> torch.Tensor:
    """All pieces together, `(K, *size)`."""
    network.seen, network.batches = [], []
    view = View(image, size, settings, network, size_divisibility=4, min_size=8, flip=flip)
    out = torch.full((CLASSES, *size), torch.nan)
    for rows, columns in pieces(CLASSES, size, settings.max_logits):
        out[:, rows, columns] = view.logits((rows, columns))
    assert not view._waiting
    return out


SIZES = [
    ((16, 16), (16, 16)),  # one window
    ((27, 38), (27, 38)),  # two and three, exactly
    ((29, 41), (53, 77)),  # the last ones moved back, enlarged
    ((61, 17), (23, 9)),  # reduced
    ((9, 13), (18, 26)),  # smaller than a window
    ((9, 50), (10, 51)),  # on one side
    ((50, 1), (100, 2)),  # one column
    ((1, 40), (1, 40)),  # one row
    ((90, 20), (2, 1)),  # so few pixels that some windows have a part in none
]


@pytest.mark.parametrize(("seen", "original"), SIZES)
@pytest.mark.parametrize("max_logits", [10**9, 500, 1])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_the_plain_loop(network, seen, original, max_logits, flip):
    if max_logits == 1 and original[0] * original[1] > 1000:
        max_logits = 20
    image = torch.randn(3, *seen)
    plain = slide(network, (image.flip(-1) if flip else image)[None], original, WINDOW, STRIDE)[0]
    expected = plain.flip(-1) if flip else plain
    out = run(network, image, original, SlidingWindow(WINDOW, STRIDE, 3, max_logits), flip)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("seen", "original"), SIZES)
def test_no_window_runs_twice_and_all_but_the_last_batch_are_full(network, seen, original):
    image = torch.arange(3 * seen[0] * seen[1], dtype=torch.float32).view(3, *seen)
    run(network, image, original, SlidingWindow(WINDOW, STRIDE, 4, 400))
    assert len({w.numpy().tobytes() for w in network.seen}) == len(network.seen)
    assert all(n == 4 for n in network.batches[:-1])


def test_windows_of_a_side():
    assert window_starts(512, 512, 341) == window_starts(300, 512, 341) == [0]
    assert window_starts(853, 512, 341) == [0, 341]
    assert window_starts(854, 512, 341) == [0, 341, 342]
    for length in range(1, 200):
        starts = window_starts(length, 24, 16)
        assert len(set(starts)) == len(starts) and starts[-1] + 24 >= length
        assert all(b - a <= 16 for a, b in pairwise(starts))


@pytest.mark.parametrize("seen", [(16, 24), (30, 9), (3, 41)])
def test_whole_images_are_padded_to_what_the_network_takes(network, seen):
    image = torch.randn(3, *seen)
    padded = F.pad(image, (0, max(-seen[1] % 4, 8 - seen[1]), 0, max(-seen[0] % 4, 8 - seen[0])))
    logits = resize(network(padded[None]), padded.shape[-2:])[:, :, : seen[0], : seen[1]]
    out = run(network, image, (50, 40), SlidingWindow(None, max_logits=300))
    torch.testing.assert_close(out[None], resize(logits, (50, 40)), atol=1e-5, rtol=1e-5)
    assert len(network.seen) == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (64, 48)])
@pytest.mark.parametrize("max_logits", [1, 50, 1000, 10**9])
def test_pieces_cover_an_image_once_and_are_bounded(size, max_logits):
    covered = torch.zeros(size, dtype=torch.int)
    for rows, columns in pieces(CLASSES, size, max_logits):
        covered[rows, columns] += 1
        assert covered[rows, columns].numel() * CLASSES <= max(max_logits, CLASSES)
    assert (covered == 1).all()


@pytest.mark.parametrize("seen", [(400, 40), (40, 400)])
def test_of_a_long_image_few_windows_are_kept(network, seen):
    settings = SlidingWindow(WINDOW, STRIDE, 2, 2000)
    view = View(torch.randn(3, *seen), seen, settings, network, size_divisibility=4, min_size=8)
    kept = []
    for piece in pieces(CLASSES, seen, settings.max_logits):
        view.logits(piece)
        kept.append(len(view._logits))
    windows = len(view.axes[0].starts) * len(view.axes[1].starts)
    assert windows == 144 and max(kept) <= 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(window_size=16, stride=17), "stride=17 leaves gaps between windows of 16 pixels"),
        (dict(window_size=0), "window_size=0 must be a whole number of at least 1"),
        (dict(window_batch_size=None), "window_batch_size=None must be"),
        (dict(stride=5.5), r"stride=5\.5 must be"),
        (dict(max_logits="many"), "max_logits=many must be"),
        (dict(window_batch_size=-1), "window_batch_size=-1"),
        (dict(max_logits=0), "max_logits=0"),
        (dict(stride=0), "stride=0"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(**arguments)


def test_published_strides():
    assert [SlidingWindow(size).stride_of(size) for size in (512, 640)] == [341, 426]
