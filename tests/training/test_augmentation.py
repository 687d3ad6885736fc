import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.augmentation import RandomIntensity, build_augmentation
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.random_states import seeded


def draw(augmentation, n_samples, seed=0, n_channels=1):
    """Samples of an image whose pixels say where they come from, and the mask of its left half."""
    image = np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (10, 1))
    data = LabelledImages([np.stack([image] * n_channels, axis=-1)], [Annotation(image < 0.5)])
    dataset = TrainingSet(data, Changes(augmentation))
    with seeded(seed):
        return [dataset[0] for _ in range(n_samples)]


@pytest.mark.parametrize(("name", "n_channels"), [("flip", 1), ("standard", 2), ("strong", 3), ("strong", 5)])
def test_image_and_mask_change_together(name, n_channels):
    shares = []
    for changed, annotation in draw(name, 20, n_channels=n_channels):
        assert changed.shape == (n_channels, *annotation.shape)
        level, foreground = changed[0].numpy(), annotation.truth
        background = annotation.labelled & ~foreground
        # the foreground is what was dark, away from borders that interpolation blurs
        if foreground.any() and background.any():
            assert np.median(level[foreground]) < np.median(level[background])
        assert annotation.is_fully_labelled or name != "flip"
        shares.append(foreground[:, :3].mean())
    assert min(shares) < 0.3 < 0.7 < max(shares)  # some are mirrored


def test_pixels_from_beyond_the_border_are_unlabelled():
    assert not all(annotation.is_fully_labelled for _, annotation in draw("standard", 20))


def test_the_seed_decides():
    draws = [torch.stack([image for image, _ in draw("standard", 3, seed)]) for seed in (0, 0, 1)]
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


def test_other_names_and_shares_are_refused():
    with pytest.raises(ValueError, match="'augmentation' parameter of build_augmentation must be"):
        build_augmentation("weak")
    with pytest.raises(ValueError, match="'colour' parameter of RandomIntensity must be"):
        RandomIntensity(colour=-0.1)
