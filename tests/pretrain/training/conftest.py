"""What the tests of training share."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the commands that tests start: sums have the same order, and tiny models run no slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
