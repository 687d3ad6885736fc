import numpy as np
import pytest
from PIL import Image

from skmmcrf.image_files import read_image


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_pixels_come_as_they_are_stored(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(dtype) * dtype(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels)


def test_palettes_are_colours_or_numbers(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 10, 20])
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[0, 0, 0], [255, 10, 20]]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", palette=True), [[0, 1]])


def test_what_is_no_image_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="a.png can't be read as an image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "b.png")
