"""Files shaped like the published ones."""

import pytest
import torch
from published import scaled


@pytest.fixture(scope="session")
def convmae(reference_names):
    torch.manual_seed(0)
    return scaled(reference_names["convmae_base_pretrain"])


@pytest.fixture(scope="session")
def detector(reference_names):
    torch.manual_seed(0)
    return scaled(reference_names["mask_rcnn_vitdet_convmae_b"])
