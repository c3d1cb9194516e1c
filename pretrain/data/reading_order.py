"""In which order images are read: a function of a generator alone, or one that reads a few tar files at a time."""

import numpy as np

__all__ = ["shuffled", "shuffled_by_shards"]


def shuffled(length: int, generator: np.random.Generator) -> np.ndarray:
    """The indices from 0 to `length` - 1, shuffled."""
    order = np.arange(length)
    generator.shuffle(order)
    return order


def shuffled_by_shards(shards: np.ndarray, window: int, generator: np.random.Generator) -> np.ndarray:
    """Shuffles images so that those of about `window` tar files are read at a time, one file after the other.

    The files are put into a row in random order, each with its images shuffled. The row is cut into `window` pieces of
    equal length, of which the result takes an image in turn; a file at a cut belongs to two pieces. Dealt out image by
    image, the result gives each of several processes pieces of its own, if `window` is a multiple of their number.

    Args:
        shards: `(N,)` each image's tar file, an index.
        window: at least 1.

    Returns:
        `(N,)` the indices of all images.
    """
    images = shuffled(len(shards), generator)
    places = shuffled(int(shards.max()) + 1, generator)
    row = images[np.argsort(places[shards[images]], kind="stable")]
    order = np.empty_like(row)
    for start, piece in enumerate(np.array_split(row, window)):
        order[start::window] = piece
    return order
