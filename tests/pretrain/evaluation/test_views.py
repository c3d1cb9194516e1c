"""Averages over the views of a video."""

import torch

from pretrain.evaluation.views import ViewAverage


def test_scores_of_views_are_averaged():
    logits = torch.randn(2, 3, 5)
    scores = logits.softmax(-1).mean(1)
    views = logits.view(2, 3, 5, 1, 1, 1)
    averaged = ViewAverage(torch.nn.Flatten())(views)
    torch.testing.assert_close(averaged.softmax(-1), scores)
    torch.testing.assert_close(ViewAverage(torch.nn.Flatten())(views[:, 0]), logits[:, 0])
