"""The parts of the linear probe against PyTorch's and by hand."""

import torch
from torch import nn

from pretrain.common.distributed import World
from pretrain.training.linear_probe import WorldBatchNorm1d, lars


def test_the_norm_of_one_process_is_pytorchs():
    ours, expected = WorldBatchNorm1d(4, World()), nn.BatchNorm1d(4, affine=False, eps=1e-6)
    for x in torch.randn(3, 5, 4) * 2 + 1:
        torch.testing.assert_close(ours(x), expected(x))
    for name, buffer in expected.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer)
    ours.eval()
    torch.testing.assert_close(ours(x), expected.eval()(x))


def test_lars_scales_matrices_alone():
    matrix, vector = nn.Parameter(torch.full((2, 2), 3.0)), nn.Parameter(torch.full((2,), 3.0))
    optimizer = lars([matrix, vector], lr=0.5)
    matrix.grad, vector.grad = torch.full((2, 2), 0.1), torch.full((2,), 0.1)
    optimizer.step()
    torch.testing.assert_close(vector, torch.full((2,), 3 - 0.5 * 0.1))
    trust = 0.001 * 6 / 0.2  # the norms of weights and gradient
    torch.testing.assert_close(matrix, torch.full((2, 2), 3 - 0.5 * trust * 0.1))
