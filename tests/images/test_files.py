import io
import struct
import zlib

import numpy as np
import pytest
from damage import damaged
from PIL import Image, features

from skmmcrf.images.files import read_image


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_pixels_come_as_they_are_stored(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("options", [{}, {"transparency": b"\x80\x20"}])
def test_palettes_are_colours_or_numbers(tmp_path, options):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 10, 20])
    palette.save(tmp_path / "a.png", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[0, 0, 0], [255, 10, 20]]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", palette=True), [[0, 1]])


def test_missing_files_text_and_formats_that_are_programs_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png", "EPS")
    for name in ("a.png", "b.png"):
        with pytest.raises(ValueError, match=f"{name} can't be read as an image: cannot identify"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "c.png")


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
def test_files_of_several_images_are_refused(tmp_path, ending):
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=rf"a.{ending} can't be read as an image: it holds several images"):
        read_image(tmp_path / f"a.{ending}")


def test_previews_of_cameras_are_not_read(tmp_path):
    photo, preview = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (4, 3), "red")
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "a.jpg").shape == (6, 8, 3)


@pytest.mark.parametrize("error", [struct.error, EOFError, MemoryError, KeyError])
def test_whatever_pil_raises_is_told(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match=f"a.png can't be read as an image: {error.__name__}"):
        read_image(tmp_path / "a.png")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """A PNG whose pixels are all 0."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12_000, 12_000), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, memory_growth, size):
    (tmp_path / "a.png").write_bytes(bomb(*size))

    def read():
        with pytest.raises(ValueError, match=r"a.png can't be read as an image: Image size \(\d+ pixels\) exceeds"):
            read_image(tmp_path / "a.png")

    assert memory_growth(read) < 20_000_000


def pictures():
    """Small files of all formats and modes."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8))
    files: list = [("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    files += [("JPEG", mode, {"progressive": mode == "L"}) for mode in ("L", "RGB", "CMYK")]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files += [("TIFF", mode, {"compression": compression}) for mode in ("L", "RGB")]
    files += [("TIFF", mode, {}) for mode in ("1", "F", "I", "P", "CMYK")]
    files += [(name, mode, {}) for name in ("BMP", "PPM") for mode in ("1", "L", "RGB")]
    files += [("GIF", "P", {}), ("GIF", "P", {"transparency": 3}), ("PNG", "P", {"transparency": b"\x80" * 9})]
    if features.check("webp"):
        files += [("WEBP", mode, {"lossless": mode == "RGB"}) for mode in ("RGB", "RGBA")]
    if features.check("jpg_2000"):
        files += [("JPEG2000", mode, {}) for mode in ("L", "RGB")]
    exif = Image.Exif()
    exif[0x010E] = "an image"
    images = [(name, colours.convert(mode), options) for name, mode, options in files]
    images += [("PNG", Image.fromarray(rng.integers(0, 65535, (20, 24), np.uint16)), {})]
    images += [("JPEG", colours, {"exif": exif, "icc_profile": bytes(200)}), ("PNG", colours, {"exif": exif})]
    pictures = []
    for name, image, options in images:
        file = io.BytesIO()
        image.save(file, name, **options)
        pictures.append(file.getvalue())
    return pictures


def with_right_checksums(data):
    """A PNG whose damage is not noticed by its checksums."""
    fixed, start = data[:8], 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack(">I", data[start : start + 4])[0]
        fixed += chunk(data[start + 4 : start + 8], data[start + 8 : end])
        start = end + 4
    return fixed


@pytest.mark.parametrize("n_files", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_told(tmp_path, monkeypatch, memory_growth, n_files):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    originals = pictures()
    rng = np.random.default_rng(0)
    n_read = 0

    def read_all():
        nonlocal n_read
        for n in range(n_files):
            data = damaged(originals[n % len(originals)], rng, originals[rng.integers(len(originals))])
            if data.startswith(b"\x89PNG") and rng.random() < 0.7:
                data = with_right_checksums(data)
            (tmp_path / "a").write_bytes(data)
            try:
                image = read_image(tmp_path / "a", palette=n % 2 == 0)
            except ValueError as error:
                if not str(error).startswith(f"{tmp_path / 'a'} can't be read as an image: "):
                    raise
            else:
                assert image.ndim in (2, 3)
                assert image.dtype.kind in "buif"
                n_read += 1

    assert memory_growth(read_all) < 50_000_000
    assert 0.05 < n_read / n_files < 0.95
