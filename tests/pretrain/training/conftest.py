"""What the tests of training share."""

import pytest
from runs import one_thread


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield
