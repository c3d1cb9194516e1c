"""The parts of linear probe, nearest neighbours and evaluation against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pretrain.common.distributed import World
from pretrain.data.samplers import ExactSampler
from pretrain.data.transforms import evaluation_transform
from pretrain.evaluation.accuracy import accuracy_line, measure_accuracy
from pretrain.evaluation.neighbours import knn_accuracy
from pretrain.training.linear_probe import WorldBatchNorm1d, lars


def test_batch_norm_is_pytorchs():
    ours, theirs = WorldBatchNorm1d(6, World()), nn.BatchNorm1d(6, affine=False, eps=1e-6)
    for _ in range(3):
        x = torch.randn(5, 6) * 3 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_lars_scales_matrices_alone():
    """Momentum 0.9, trust coefficient 0.001, no weight decay: the published update, written out."""
    weight, bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))
    optimizer = lars([weight, bias], lr=0.5)
    expected, momentum = [weight.detach().clone(), bias.detach().clone()], [0.0, 0.0]
    for _ in range(3):
        for i, p in enumerate((weight, bias)):
            p.grad = torch.randn_like(p)
            trust = 0.001 * expected[i].norm() / p.grad.norm() if p.ndim > 1 else 1.0
            momentum[i] = 0.9 * momentum[i] + trust * p.grad
            expected[i] = expected[i] - 0.5 * momentum[i]
        optimizer.step()
    torch.testing.assert_close(weight.data, expected[0])
    torch.testing.assert_close(bias.data, expected[1])


@pytest.mark.parametrize("k", [4, 27])
def test_nearest_neighbours_are_weighted(monkeypatch, k):
    features, labels = torch.randn(30, 5), torch.arange(30) % 7
    test_features, test_labels = torch.randn(8, 5), torch.randint(7, (8,))
    temperature, top1, top5 = 0.07, 0, 0
    for feature, label in zip(test_features, test_labels, strict=True):
        similarity = F.cosine_similarity(feature[None], features)
        votes = torch.zeros(7)
        for i in similarity.argsort(descending=True)[:k]:
            votes[labels[i]] += (similarity[i] / temperature).exp()
        ranked = votes.argsort(descending=True)
        top1 += int(ranked[0] == label)
        top5 += int(votes[label] >= votes[ranked[4]])
    found = knn_accuracy((features, labels), (test_features, test_labels), 7, k, temperature)
    assert found["acc1"] == pytest.approx(100 * top1 / 8)
    if k == 27:  # all classes have votes: there are no ties
        assert found["acc5"] == pytest.approx(100 * top5 / 8)
    monkeypatch.setattr("pretrain.evaluation.neighbours.CHUNK_SIMILARITIES", 60)  # two images at a time
    assert knn_accuracy((features, labels), (test_features, test_labels), 7, k, temperature) == found


@pytest.mark.parametrize("temperature", [0.07, 0.005, 1e-4])
def test_votes_at_low_temperatures(temperature):
    """The most similar image decides in the end, and its weight does not overflow on the way."""
    features = torch.eye(4)
    labels = torch.tensor([3, 1, 2, 0])
    found = knn_accuracy((features, labels), (features + 0.01, labels), 4, 3, temperature)
    assert found["acc1"] == 100


def test_accuracy_counts_images_not_batches():
    logits = torch.eye(7)[torch.tensor([0, 1, 2, 3, 4])] * 5 - 0.1 * torch.arange(7.0)  # no ties: class 6 comes last
    labels = torch.tensor([0, 1, 2, 0, 6])
    batches = [(logits[:3], labels[:3]), (logits[3:], labels[3:])]
    found = measure_accuracy(lambda x: x, batches, World(), torch.device("cpu"))
    assert found["acc1"] == pytest.approx(60.0) and found["acc5"] == pytest.approx(80.0)
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
    assert accuracy_line(found) == f"* Acc@1 60.000 Acc@5 80.000 loss {found['loss']:.3f}"


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_processes_share_every_image_exactly_once(size):
    shares = [list(ExactSampler(7, World(rank, rank, size))) for rank in range(size)]
    assert sorted(index for share in shares for _, index in share) == list(range(7))


@pytest.mark.parametrize(("side", "border"), [(224, 16), (32, 0), (384, 0)])
def test_published_evaluation_crop(side, border):
    """256 to 224 pixels at 224; nothing is cut off beyond, and nothing of small images."""
    image = Image.linear_gradient("L").resize((side + 2 * border,) * 2, Image.Resampling.BICUBIC)
    cropped = evaluation_transform((side, side), 1)(image) * 0.226 + 0.449
    expected = image.crop((border, border, side + border, side + border))
    assert (cropped[0] * 255 - torch.from_numpy(np.array(expected))).abs().max() <= 1.5
