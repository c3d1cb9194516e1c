"""Random and complementary masks."""

import pytest
import torch

from pretrain.models.masking import complementary_mask, random_mask, take_patches


def test_random_mask_keeps_smallest_noise_in_order():
    noise = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]])
    ids_keep, ids_masked, ids_restore, mask = random_mask(noise, 0.5)
    assert ids_keep.tolist() == [[1, 3], [0, 1]]
    assert ids_masked.tolist() == [[2, 0], [2, 3]]
    assert mask.tolist() == [[1, 0, 1, 0], [0, 0, 1, 1]]
    assert torch.cat([ids_keep, ids_masked], 1).gather(1, ids_restore).tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(("mask_ratio", "visible"), [(0.75, 49), (0.6, 78), (0.0, 196), (0.9, 19)])
def test_number_of_visible_patches(mask_ratio, visible):
    assert random_mask(torch.rand(3, 196), mask_ratio).ids_keep.shape == (3, visible)


def test_complementary_views_show_each_patch_once():
    noise = torch.rand(3, 16)
    masks = complementary_mask(noise, 0.75)
    assert masks.ids_keep.shape == (12, 4)
    assert torch.equal((1 - masks.mask).view(4, 3, 16).sum(0), torch.ones(3, 16))
    assert torch.equal(masks.ids_keep[:3], random_mask(noise, 0.75).ids_keep)  # group-major: the first B are group 0
    restored = torch.cat([masks.ids_keep, masks.ids_masked], 1).gather(1, masks.ids_restore)
    assert torch.equal(restored, torch.arange(16).expand(12, 16))


def test_complementary_needs_four_equal_groups():
    with pytest.raises(ValueError, match=r"needs mask_ratio 0\.75, got 0\.6"):
        complementary_mask(torch.rand(1, 16), 0.6)
    with pytest.raises(ValueError, match="divisible by four, got 9"):
        complementary_mask(torch.rand(1, 9), 0.75)


def test_take_patches_of_more_views_than_images():
    x = torch.arange(2 * 3).float().view(2, 3, 1)
    ids = torch.tensor([[0, 2], [1, 1], [2, 2], [0, 1]])  # group-major: views 0 and 2 are of image 0
    assert take_patches(x, ids).squeeze(-1).tolist() == [[0, 2], [4, 4], [2, 2], [3, 4]]
