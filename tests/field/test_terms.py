import numpy as np
import pytest

from skmmcrf.field import Contrast, Grid, Smoothness, build_terms, estimate_sigma
from skmmcrf.field.terms import scale_image, squared_contrast

GRID = Grid.from_connectivity(4)
NO_GRID = "image must have 2 dimensions and channels, none of them 0"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([0, 255], dtype=np.uint8), [0, 1]),
        (np.array([0, 65535], dtype=np.uint16), [0, 1]),
        (np.array([False, True]), [0, 1]),
        (np.array([-3.0, 250.0]), [-3, 250]),
        (np.array([0.5], dtype=np.float16), [0.5]),
    ],
)
def test_images_are_scaled_by_their_dtype_and_floats_kept(image, expected):
    scaled = scale_image(image)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, expected)


@pytest.mark.parametrize("dtype", [np.int32, complex, object])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="image must be of bool, uint8, uint16 or float"):
        squared_contrast(GRID, np.zeros((2, 2, 1), dtype=dtype))


def test_contrast_is_that_of_the_scaled_image_summed_over_channels():
    image = np.random.default_rng(0).integers(256, size=(5, 6, 3), dtype=np.uint8)
    found = squared_contrast(GRID, image)
    np.testing.assert_array_equal(found, squared_contrast(GRID, scale_image(image)))
    first, second = scale_image(image).reshape(-1, 3).astype(float)[GRID.edges((5, 6)).pixels]
    np.testing.assert_allclose(found, ((first - second) ** 2).sum(axis=1))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 1), (0, 3, 1), (2, 3, 0)])
def test_contrast_needs_pixels_and_channels(shape):
    with pytest.raises(ValueError, match=NO_GRID):
        squared_contrast(GRID, np.zeros(shape))


@pytest.mark.parametrize(
    ("connectivity", "shape"), [(8, (3, 4)), (((0, 1), (3, 0), (0, 9)), (4, 5)), (26, (2, 2, 3))], ids=str
)
def test_rows_are_one_and_a_factor_of_the_contrast(connectivity, shape):
    grid = Grid.from_connectivity(connectivity, len(shape), spacing=(1.0, 0.7, 2.0)[: len(shape)])
    image = np.random.default_rng(0).normal(size=(*shape, 2))
    first, second = image.reshape(-1, 2)[grid.edges(shape).pixels]
    factor = np.exp(-((first - second) ** 2).sum(axis=1) / (2 * 0.8**2))
    smoothness, contrast = (term.row(grid, image) for term in build_terms("contrast", sigma=0.8))
    assert smoothness == 1
    np.testing.assert_allclose(contrast, factor)


@pytest.mark.parametrize("sigma", [1e-320, 1e-200, np.float64(1e-200), 1e200, np.float64(1e300)])
def test_sigma_may_be_tiny_or_huge(sigma):
    image = np.array([[[0.0], [0.0], [1.0], [50.0]]])
    np.testing.assert_array_equal(Contrast(sigma).row(GRID, image), [1, 0, 0] if sigma < 1 else [1, 1, 1])


@pytest.mark.parametrize("scale", [1e-200, 1e30, 3e38])
def test_images_may_have_tiny_or_huge_values(scale):
    image = scale * np.array([[[0.0], [0.0], [1.0]]])
    np.testing.assert_array_equal(Contrast(1.0).row(GRID, image), [1, 1 if scale < 1 else 0])
    assert estimate_sigma(GRID, [image], [1.0]) == (1.0 if scale < 1 else pytest.approx(scale / np.sqrt(2)))


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_sigma_must_be_positive(sigma):
    with pytest.raises(ValueError, match="sigma must be positive"):
        build_terms("contrast", sigma)


def test_terms_are_made_by_their_names():
    assert build_terms("smoothness") == (Smoothness(),)
    assert build_terms("contrast", 2) == (Smoothness(), Contrast(2.0))
    with pytest.raises(ValueError, match="pairwise must be one of 'smoothness', 'contrast', got 'colour'"):
        build_terms("colour")
    with pytest.raises(ValueError, match="sigma is missing"):
        build_terms("contrast")


def test_estimated_sigma_is_the_weighted_root_mean_square_over_all_pairs_of_all_images():
    images = [np.array([[[0.0], [0.5], [0.5]]]), np.array([[[0.0]], [[1.0]]])]
    assert estimate_sigma(GRID, images, [1, 1]) == pytest.approx(np.sqrt((0.25 + 0 + 1) / 3))
    assert estimate_sigma(GRID, images, [1, 3]) == estimate_sigma(GRID, [*images, *images[1:] * 2], [1] * 4)
    assert estimate_sigma(GRID, images, [0, 1]) == 1.0


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 3)])
def test_estimated_sigma_of_constant_images_leaves_the_contrast_finite(shape):
    image = np.full(shape, 0.7)
    smoothness, contrast = build_terms("contrast", estimate_sigma(GRID, [image], [1.0]))
    assert (contrast.row(GRID, image) == smoothness.row(GRID, image)).all()
