import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from skmmcrf.augmentation import RandomIntensity, build_augmentation
from skmmcrf.image_datasets import AugmentedDataset
from skmmcrf.random_states import seeded
from skmmcrf.truth import Truth


def stripes(n_channels=1):
    """An image whose pixels say where they come from, and the mask of its left half."""
    image = np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (10, 1))
    return np.stack([image] * n_channels, axis=-1), Truth(image < 0.5)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["flip", "standard", "strong"])
def test_image_and_mask_change_together(name, n_channels):
    image, truth = stripes(n_channels)
    dataset = AugmentedDataset([image], [truth], build_augmentation(name))
    with seeded(0):
        samples = [dataset[0] for _ in range(20)]
    shares = []
    for changed, mask in samples:
        assert changed.shape == (n_channels, *mask.shape)
        inside = mask.labelled
        level = changed[0].numpy()
        # the foreground is what was dark, away from borders that interpolation blurs
        if mask.foreground.any() and (inside & ~mask.foreground).any():
            assert np.median(level[mask.foreground]) < np.median(level[inside & ~mask.foreground])
        shares.append(mask.foreground[:, :3].mean())
    assert min(shares) < 0.3 < 0.7 < max(shares)  # some are mirrored
    assert all(mask.is_complete for _, mask in samples) == (name == "flip")


def test_the_seed_decides():
    image, truth = stripes()
    dataset = AugmentedDataset([image], [truth], build_augmentation("standard"))
    draws = []
    for seed in (0, 0, 1):
        with seeded(seed):
            draws.append(torch.stack([dataset[0][0] for _ in range(3)]))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_intensity_leaves_order_and_mask():
    image, mask = tv_tensors.Image(torch.linspace(-500, 900, 24).view(1, 4, 6)), torch.zeros(4, 6)
    with seeded(0):
        changed, same = RandomIntensity(contrast=0.5, brightness=0.5)(image, mask)
    assert same is mask
    assert isinstance(changed, tv_tensors.Image)
    steps = changed.as_subclass(torch.Tensor).diff(dim=-1)
    torch.testing.assert_close(steps, steps[:, :1, :1].expand_as(steps), rtol=1e-4, atol=0)
    assert 0.5 <= (steps / image.diff(dim=-1)).mean() <= 1.5


def test_colour_changes_channels_apart():
    image, mask = tv_tensors.Image(torch.ones(3, 4, 6)), torch.zeros(4, 6)
    change = RandomIntensity(contrast=0, brightness=0, colour=0.3)
    with seeded(0):
        changed, _ = change(image, mask)
        grey, _ = change(image[:1], mask)
    factors = changed[:, 0, 0].as_subclass(torch.Tensor)
    torch.testing.assert_close(changed.as_subclass(torch.Tensor), factors[:, None, None].expand(3, 4, 6))
    assert len(factors.unique()) == 3
    assert ((factors >= 0.7) & (factors <= 1.3)).all()
    assert torch.equal(grey, image[:1])
