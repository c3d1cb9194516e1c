"""Random generators seeded for a block of code and put back afterwards."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

__all__ = ["generators_seeded", "seed_everything", "seeded_everywhere", "seeded_torch"]


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's generators, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def _torch_generator_seeded(seed: int) -> Iterator[None]:
    # torch.random.fork_rng and torch.manual_seed do this for every device, which takes longer than reading a small
    # image.
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def generators_seeded(python_seed: int, numpy_seed: int, torch_seed: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's generators on the CPU, and leaves all as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(int(python_seed))
    np.random.seed(numpy_seed)
    try:
        with _torch_generator_seeded(int(torch_seed)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _sequence(*seed: int) -> np.random.SeedSequence:
    """`SeedSequence(seed)` of numbers below 2**32; given as a tuple, it would be slow to convert them."""
    return np.random.SeedSequence(np.array(seed, np.uint32))


def seeded_torch(*seed: int) -> AbstractContextManager[None]:
    """Seeds torch's generator on the CPU from several numbers below 2**32, and leaves it as it was."""
    return _torch_generator_seeded(int(_sequence(*seed).generate_state(1, np.uint64)[0]))


def seeded_everywhere(*seed: int) -> AbstractContextManager[None]:
    """:func:`generators_seeded` from several numbers: timm's augmentation draws from all of them."""
    numpy_seed, python_seed = _sequence(*seed, 1).generate_state(2)
    return generators_seeded(python_seed, numpy_seed, _sequence(*seed).generate_state(1, np.uint64)[0])
