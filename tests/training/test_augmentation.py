import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torchvision import transforms, tv_tensors
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.augmentation import RandomChanges, RandomIntensity, build_augmentation
from skmmcrf.training.batches import Batch
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.random_states import seeded


def draw(augmentation, n_samples, seed=0, n_channels=1):
    """Samples of an image whose pixels say where they come from, and the mask of its left half."""
    image = np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (10, 1))
    data = LabelledImages([np.stack([image] * n_channels, axis=-1)], [Annotation(image < 0.5)])
    dataset = TrainingSet(data, Changes(augmentation), seed)
    with seeded(0):
        batch = Batch.of_samples([dataset[epoch, 0] for epoch in range(n_samples)])
    (stack,) = (stack.changed(dataset.of_stacks) for stack in batch.stacks)
    annotations = [Annotation(*parts) for parts in zip(stack.truth.numpy(), stack.labelled.numpy())]
    return list(zip(stack.images, annotations))


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


@pytest.mark.parametrize("mirrored", [False, True])
def test_images_are_turned_scaled_and_shifted_as_torchvision_does(mirrored):
    image, mask = torch.rand(3, 40, 60), (torch.rand(40, 60) < 0.5).to(torch.uint8)
    changes = RandomChanges(degrees=20, scale=(0.7, 1.5), shift=0.2)
    draws = torch.tensor([[0.25 + 0.5 * (not mirrored), 0.9, 0.3, 0.75, 0.6, *5 * [0.0]]])
    images, masks = changes.of_stack(image[None], mask[None], draws)
    how = {"angle": 16.0, "scale": 0.94, "translate": [0.2 * 60 * 0.5, 0.2 * 40 * 0.2], "shear": [0.0, 0.0]}
    image, mask = (part.flip(-1) if mirrored else part for part in (image, mask))
    expected = v2.functional.affine(image, **how, interpolation=v2.InterpolationMode.BILINEAR)
    torch.testing.assert_close(images[0], expected, rtol=0, atol=1e-4)
    expected = v2.functional.affine(tv_tensors.Mask(mask[None]), **how, fill=255)[0].as_subclass(torch.Tensor)
    assert (masks[0] == expected).float().mean() > 0.99


def test_without_turns_images_keep_their_values():
    images, masks = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4), torch.arange(24, dtype=torch.uint8)
    changed, _ = RandomChanges().of_stack(images, masks.view(2, 3, 4), torch.tensor([[0.1], [0.9]]).expand(2, 8))
    assert torch.equal(changed, torch.stack([images[0].flip(-1), images[1]]))


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


@pytest.fixture(scope="module")
def albumentations():
    # importing it would ask the network for newer versions
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
        return pytest.importorskip("albumentations")


@pytest.fixture(scope="module")
def turned(albumentations):
    A = albumentations
    parts = [A.HorizontalFlip(), A.Affine(translate_percent=(-0.2, 0.2), fill_mask=255, p=1), A.GaussNoise()]
    return A.Compose(parts)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 5])
def test_transforms_of_albumentations_change_image_and_mask_together(albumentations, turned, n_channels):
    samples = {augmentation: draw(augmentation, 20, n_channels=n_channels) for augmentation in (turned, turned[0])}
    for changed, annotation in samples[turned[0]]:
        assert changed.shape == (n_channels, 10, 12)
        np.testing.assert_array_equal(annotation.truth, changed[0].numpy() < 0.5)
    assert 0 < np.mean([annotation.truth[0, 0] for _, annotation in samples[turned[0]]]) < 1
    assert not all(annotation.is_fully_labelled for _, annotation in samples[turned])


def test_tensors_of_albumentations_and_values_beyond_1_are_taken(albumentations):
    A = albumentations
    image = 900 * np.random.default_rng(0).uniform(-1, 1, (6, 7, 1)).astype(np.float32)
    data = LabelledImages([image], [Annotation(image[..., 0] > 0)])
    for augmentation in (A.VerticalFlip(p=1), A.Compose([A.VerticalFlip(p=1), A.ToTensorV2()])):
        with seeded(0):
            changed = TrainingSet(data, Changes(augmentation))[1, 0]
        np.testing.assert_array_equal(changed.image.numpy()[0], image[::-1, :, 0])
        np.testing.assert_array_equal(changed.mask.numpy(), image[::-1, :, 0] > 0)


def test_the_seed_decides_what_albumentations_draws(turned):
    draws = [torch.stack([image for image, _ in draw(turned, 3, seed)]) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])


class Stop(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise RuntimeError("power cut")


def test_a_fit_that_goes_on_draws_from_albumentations_as_one_that_was_not_cut(phantoms, turned, tmp_path):
    def fit(**parameters):
        cnn = CNNSegmenter(lambda n: nn.Conv2d(n, 1, 3, padding=1), n_epochs=3, augmentation=turned, random_state=0)
        return cnn.set_params(batch_size=3, **parameters).fit(*phantoms)

    whole = fit().network_.state_dict()
    with pytest.raises(RuntimeError, match="power cut"):
        fit(checkpoint=tmp_path, callbacks=[Stop()])
    gone_on = fit(checkpoint=tmp_path).network_.state_dict()
    for name, values in whole.items():
        assert torch.equal(gone_on[name], values)


def test_transforms_v1_of_torchvision_are_refused_before_training(phantoms):
    flip = transforms.RandomHorizontalFlip()
    for augmentation in (flip, transforms.Compose([v2.RandomHorizontalFlip()]), v2.Compose([flip])):
        for model in (CNNSegmenter(augmentation=augmentation), DeepStructuredSegmenter(augmentation=augmentation)):
            with pytest.raises(ValueError, match="does not change masks: use the one of torchvision.transforms.v2"):
                model.fit(*phantoms)


def test_an_augmentation_that_fails_is_told_with_its_call(phantoms):
    called = r"called as augmentation\(image, mask\), .* of \(1, 32, 40\) and \(32, 40\), it raised TypeError"
    with pytest.raises(ValueError, match=f"augmentation: {called}") as told:
        CNNSegmenter(augmentation=lambda image: image).fit(*phantoms)
    assert type(told.value.__cause__) is TypeError


def test_a_transform_of_albumentations_that_fails_is_told_with_its_call(phantoms, albumentations):
    crop = albumentations.RandomCrop(99, 99)
    with pytest.raises(ValueError, match=r"augmentation\(image=..., mask=...\), arrays .*, it raised CropSizeError"):
        CNNSegmenter(augmentation=crop).fit(*phantoms)


def test_a_normalization_in_training_alone_is_told(phantoms):
    normalize = v2.Compose([v2.RandomApply([v2.Normalize([0.5], [0.5])])])
    with pytest.warns(UserWarning, match="augmentation: Normalize acts in training only, so predict would see"):
        CNNSegmenter(n_epochs=0, augmentation=normalize).fit(*phantoms)


def test_a_normalization_by_albumentations_is_told(phantoms, albumentations):
    normalize = albumentations.OneOf([albumentations.Normalize(0.5, 0.5)])
    with pytest.warns(UserWarning, match="augmentation: Normalize acts in training only, so predict would see"):
        CNNSegmenter(n_epochs=0, augmentation=normalize).fit(*phantoms)
