"""Weighted nearest neighbours, as in DINO (arXiv:2104.14294, and before it Wu et al., 2018, arXiv:1805.01978)."""

import torch
import torch.nn.functional as F

from pretrain.common.errors import UserError
from pretrain.evaluation.accuracy import count_correct

__all__ = ["knn_accuracy"]

# Similarities held at a time: 256 MB of them.
CHUNK_SIMILARITIES = 2**26


def knn_accuracy(
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> dict[str, float]:
    """Accuracy of a vote among the k most similar training images, weighted by exp(cosine similarity / temperature).

    Args:
        train: features `(N, C)` and labels `(N,)`.
        test: the same of the images to classify.

    Returns:
        `acc1` and `acc5` in percent.

    Raises:
        UserError: there are fewer than k training images.
    """
    (train_features, train_labels), (test_features, test_labels) = train, test
    if k > len(train_features):
        raise UserError(f"--k {k} neighbours cannot be found among {len(train_features)} training images.")
    train_features = F.normalize(train_features, dim=1)
    chunk = max(1, CHUNK_SIMILARITIES // len(train_features))
    right = torch.zeros(2, dtype=torch.int64, device=test_labels.device)
    for features, labels in zip(test_features.split(chunk), test_labels.split(chunk), strict=True):
        similarity, neighbours = (F.normalize(features, dim=1) @ train_features.T).topk(k, dim=1)
        # Relative to the most similar one, as a low temperature would overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(labels), num_classes).scatter_add_(1, train_labels[neighbours], weights)
        right += torch.stack(count_correct(votes.topk(min(5, num_classes)).indices, labels))
    acc1, acc5 = (100 * right / len(test_labels)).tolist()
    return {"acc1": acc1, "acc5": acc5}
