import io
import struct
import sys
import zlib

import numpy as np
import pytest
import SimpleITK
import tifffile
from damage import damaged
from PIL import Image, ImageOps, features

from skmmcrf.images.files import pixels_of, read_image

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (5, 4, 3), np.uint16)


def write_png(file, values):
    """A PNG of 16 bits in several channels."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=True), file, imageIO="PNGImageIO")


def read_opened(file, **options):
    """What a file gives as an opened image, whether or not that has been loaded."""
    with Image.open(file) as image:
        pixels = pixels_of(image, **options)
    with Image.open(file) as image:
        image.load()
    np.testing.assert_array_equal(pixels_of(image, **options), pixels)
    return pixels


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_pixels_come_as_they_are_stored(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, pixels)


def palette_image(colours, indices=((0, 1),), mode="P"):
    image = Image.fromarray(np.array(indices, np.uint8), mode="P")
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image.convert(mode)


GREYS = [[255] * 3, [0] * 3]
COLOURS = [[0] * 3, [255, 10, 20]]
VOC = [[0] * 3, [128, 0, 0], [9, 9, 9]]  # with a grey among the colours


@pytest.mark.parametrize("ending", ["png", "gif", "tif", "bmp", "PNG"])
@pytest.mark.parametrize(
    ("colours", "indices", "labels", "pixels"),
    [
        (GREYS, [[0, 1]], [[255, 0]], [[255, 0]]),
        (COLOURS, [[0, 1]], [[0, 1]], [[[0] * 3, [255, 10, 20]]]),
        (VOC, [[0, 2]], [[0, 2]], [[[0] * 3, [9] * 3]]),
        (VOC * 3, [[0, 1, 4]], [[0, 1, 4]], [[[0] * 3, [128, 0, 0], [128, 0, 0]]]),
        (VOC * 80, [[0, 1, 200]], [[0, 1, 200]], [[[0] * 3, [128, 0, 0], [9] * 3]]),
    ],
)
def test_palettes_mean_greys_indices_or_colours(tmp_path, ending, colours, indices, labels, pixels):
    image = palette_image(colours, indices)
    image.save(tmp_path / f"a.{ending}", **({"optimize": False} if ending == "gif" else {}))
    for read, source in (
        (read_image, tmp_path / f"a.{ending}"),
        (read_opened, tmp_path / f"a.{ending}"),
        (pixels_of, image),
    ):
        np.testing.assert_array_equal(read(source, as_labels=True), labels)
        np.testing.assert_array_equal(read(source), pixels)


def test_palettes_of_1_2_and_4_bits_are_read(tmp_path):
    for n_colours in (2, 4, 16):
        indices = [range(n_colours)]
        image = palette_image([[n, 0, 0] for n in range(n_colours)], indices)
        image.save(tmp_path / "a.png", bits=n_colours.bit_length() - 1)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", as_labels=True), indices)


def test_greys_in_another_order_than_the_indices_of_colours_are_refused(tmp_path):
    palette_image([*GREYS, [255, 0, 0]]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png can't be read as an image: it uses only greys of a palette with colo"):
        read_image(tmp_path / "a.png", as_labels=True)
    assert read_image(tmp_path / "a.png").shape == (1, 2, 3)


def test_transparency_in_a_palette_is_left_out_of_images(tmp_path):
    palette_image(COLOURS).save(tmp_path / "a.png", transparency=b"\x80\x20")
    assert read_image(tmp_path / "a.png").tolist() == read_opened(tmp_path / "a.png").tolist() == [COLOURS]
    assert read_image(tmp_path / "a.png", as_labels=True).tolist() == [[0, 1]]
    alpha = palette_image(COLOURS, mode="PA")
    alpha.putalpha(77)
    assert pixels_of(alpha).tolist() == [COLOURS]
    assert pixels_of(alpha, as_labels=True).tolist() == [[0, 1]]
    alpha = palette_image(GREYS, mode="PA")
    alpha.putalpha(77)
    assert pixels_of(alpha).tolist() == [[255, 0]]
    with pytest.raises(ValueError, match="transparent pixels"):
        pixels_of(alpha, as_labels=True)


@pytest.mark.parametrize(
    "modes",
    ["1", "L", "I", "LA", "LA La", "P", "P PA", "RGB", "RGBA", "RGBX", "RGBA RGBa", "RGB CMYK", "RGB YCbCr", "RGB HSV"],
)
def test_masks_of_grey_in_any_mode_hold_it(modes):
    image = Image.fromarray(np.array([[0, 255]], np.uint8))
    for mode in modes.split():
        image = image.convert(mode)
    assert pixels_of(image, as_labels=True).tolist() == [[0, 1 if modes == "1" else 255]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (4, 5), "red"), r"colours, .*load_image_pairs\(..., foreground=\(r, g, b\)\)"),
        (Image.new("RGB", (4, 5), "red").convert("CMYK"), "colours"),
        (Image.new("RGBA", (4, 5), (9, 9, 9, 200)), "transparent pixels"),
        (Image.new("LA", (4, 5), (9, 200)), "transparent pixels"),
        (Image.new("LAB", (4, 5)), "LAB"),
    ],
)
def test_masks_of_colours_or_transparency_are_refused(image, message):
    with pytest.raises(ValueError, match=f"^the opened image can't be read: .*{message}"):
        pixels_of(image, as_labels=True)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_masks_with_one_transparent_colour_are_refused_where_it_is_used(tmp_path, mode):
    image = palette_image([[0] * 3, [255] * 3], mode=mode)
    for transparency, used in (((0, 0, 0), True), ((5, 5, 5), False)):
        if mode != "RGB":
            transparency = int(not used) * 5
        image.save(tmp_path / "a.png", transparency=transparency)
        if used:
            with pytest.raises(ValueError, match=r"a.png can't be read as an image: it is a mask with transparent"):
                read_image(tmp_path / "a.png", as_labels=True)
        else:
            assert read_image(tmp_path / "a.png", as_labels=True).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("mode", "ending"),
    [(mode, ending) for mode in ("1", "L", "P", "RGB", "RGBA", "I;16") for ending in ("png", "PNG", "tif")]
    + [("RGB", "webp")] * features.check("webp"),
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_masks_are_turned_as_exif_says(tmp_path, mode, ending, orientation):
    image = Image.fromarray(RNG.integers(0, 2, (5, 4), np.uint8) * 255).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{ending}"
    if ending == "tif":
        image.save(file, tiffinfo={274: orientation}, compression="tiff_lzw" if mode == "L" else None)
    else:
        image.save(file, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    image.info["exif"] = exif.tobytes()
    wanted = np.asarray(ImageOps.exif_transpose(image).convert("L" if mode == "P" else mode))
    for read, source in ((read_image, file), (read_opened, file), (pixels_of, image)):
        if read is read_opened and ending == "tif" and orientation > 4 and mode != "L":
            with pytest.raises(ValueError, match="a.tif can't be read: PIL does not keep its pixels"):
                read(source)
            continue
        np.testing.assert_array_equal(read(source), wanted)
        labels = read(source, as_labels=True)
        np.testing.assert_array_equal(labels, wanted if wanted.ndim == 2 else wanted[..., 0])


def test_images_that_were_turned_already_are_not_turned_again(tmp_path):
    image = Image.fromarray(RNG.integers(0, 256, (5, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        turned = ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(pixels_of(turned), np.rot90(image, -1))


def test_damaged_exif_is_ignored(tmp_path):
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")
    assert read_image(tmp_path / "a.png").shape == (5, 4, 3)


@pytest.mark.parametrize("n_channels", [3, 4])
@pytest.mark.parametrize("ending", ["png", "PNG"])
def test_png_of_16_bits_in_several_channels_is_read_whole(tmp_path, n_channels, ending):
    values = RNG.integers(0, 65536, (5, 4, n_channels), np.uint16)
    write_png(tmp_path / f"a.{ending}", values)
    image = read_image(tmp_path / f"a.{ending}")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, values)
    assert read_image(tmp_path / f"a.{ending}", channels="RGB").tolist() == values[..., :3].tolist()


def test_png_of_16_bits_in_grey_and_alpha_is_refused(tmp_path):
    header, pixels = struct.pack(">IIBBBBB", 1, 1, 16, 4, 0, 0, 0), zlib.compress(bytes(5))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(ValueError, match="a.png can't be read as an image: .* give an array"):
        read_image(tmp_path / "a.png")


def test_greys_stored_as_16_bits_in_several_channels_are_labels(tmp_path):
    labels = np.array([[0, 1, 65535]], np.uint16)
    write_png(tmp_path / "a.png", np.repeat(labels[..., None], 3, axis=2))
    assert read_image(tmp_path / "a.png", as_labels=True).tolist() == labels.tolist()
    write_png(tmp_path / "a.png", np.repeat(labels[..., None], 4, axis=2))
    with pytest.raises(ValueError, match="transparent"):
        read_image(tmp_path / "a.png", as_labels=True)


def test_png_of_16_bits_is_turned_as_exif_says(tmp_path):
    write_png(tmp_path / "a.png", DEEP)
    data = (tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + data[33:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(DEEP, -1))


UINT16, COLOUR = RNG.integers(0, 65536, (5, 4), np.uint16), {"photometric": "rgb"}
FOUR = RNG.integers(0, 65536, (5, 4, 4), np.uint16)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (DEEP, COLOUR),
        (DEEP, COLOUR | {"byteorder": ">"}),
        (DEEP, COLOUR | {"bigtiff": True}),
        (DEEP, COLOUR | {"compression": "zlib", "predictor": True}),
        (DEEP, COLOUR | {"resolution": (72, 72), "description": "x"}),
        (FOUR, COLOUR | {"extrasamples": ["unassalpha"]}),
        (FOUR.astype(np.uint8), COLOUR | {"extrasamples": ["unassalpha"]}),
        (FOUR.astype(np.uint8), COLOUR | {"extrasamples": ["unspecified"]}),  # near infrared
        (DEEP.astype(np.uint8), COLOUR),
        (DEEP.astype(np.uint8), COLOUR | {"tile": (16, 16)}),
        (UINT16, {}),
        (UINT16, {"byteorder": ">"}),
        (UINT16.view(np.int16), {}),
        (UINT16.view(np.int16), {"byteorder": ">"}),
        (UINT16.astype(np.int8), {}),
        (UINT16.astype(np.uint32) * 65536, {}),
        (UINT16.view(np.int16).astype(np.int32) * 30000, {}),
        (UINT16 / np.float32(65535), {}),
        (UINT16 / np.float32(65535), {"byteorder": ">"}),
        (UINT16 > 30000, {"photometric": "minisblack"}),
        (UINT16.astype(np.uint8), {}),
    ],
)
def test_tiff_gives_the_values_that_it_holds(tmp_path, values, options):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    image = read_image(tmp_path / "a.tif")
    assert image.shape == values.shape
    np.testing.assert_array_equal(image, values)
    assert image.dtype.isnative


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (DEEP.transpose(2, 0, 1), COLOUR | {"planarconfig": "separate"}),
        (DEEP, COLOUR | {"tile": (16, 16)}),
        (DEEP, COLOUR | {"extratags": [(274, "H", 1, 4, True)]}),
        (DEEP[..., :2], {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
        (FOUR, {"photometric": "separated"}),
        (FOUR, COLOUR | {"extrasamples": ["assocalpha"]}),
        (np.repeat(DEEP, 2, axis=2), {"photometric": "minisblack", "planarconfig": "contig"}),
        (UINT16.astype(np.uint32) * 65536, {"byteorder": ">"}),
        (UINT16.astype(np.float16), {}),
        (UINT16 / 65535, {}),
        (UINT16 / np.float32(65535), {"photometric": "miniswhite"}),
    ],
)
def test_tiff_of_other_layouts_is_refused(tmp_path, values, options):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(ValueError, match="a.tif can't be read as an image: .* give an array"):
        read_image(tmp_path / "a.tif")


def test_tiff_whose_zeros_are_white_is_read_as_it_looks(tmp_path):
    for values in (UINT16, UINT16.astype(np.uint8), UINT16 > 30000):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), ~values)


def test_opened_images_of_16_bits_in_several_channels_are_refused(tmp_path):
    write_png(tmp_path / "a.png", DEEP)
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    for name in ("a.png", "a.tif"):
        for load in (False, True):
            with Image.open(tmp_path / name) as image:
                if load:
                    image.load()
                with pytest.raises(ValueError, match=f"{name} can't be read: PIL does not keep .* give the path"):
                    pixels_of(image)


def test_opened_images_whose_file_has_changed_or_gone_are_read(tmp_path):
    for ending in ("png", "tif"):
        Image.new("RGB", (4, 5)).save(tmp_path / f"a.{ending}")
        with Image.open(tmp_path / f"a.{ending}") as image:
            image.load()
        Image.new("RGB", (9, 9)).save(tmp_path / f"a.{ending}", "BMP")
        assert pixels_of(image).shape == (5, 4, 3)
        (tmp_path / f"a.{ending}").unlink()
        assert pixels_of(image).shape == (5, 4, 3)


def test_16_bits_that_only_pil_reads_are_scaled_or_refused(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + bytes([0, 0, 1, 2, 255, 255]))
    image = read_image(tmp_path / "a.pgm")
    assert image.dtype == np.uint16
    assert image.tolist() == [[0, 258, 65535]]
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    (tmp_path / "b.ppm").write_bytes(b"P3 1 1 65535\n 1 2 3")
    for name in ("a.ppm", "b.ppm"):
        for read in (read_image, read_opened):
            with pytest.raises(ValueError, match=f"{name} can't be read.*(half of its 16 bits|keep its pixels)"):
                read(tmp_path / name)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="PIL lacks it")
@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_jpeg_2000_of_more_than_8_bits_in_several_channels_is_refused(tmp_path, ending):
    for mode in ("RGB", "L", "RGBA"):
        image = Image.new(mode, (8, 6), "white")
        image.save(tmp_path / f"a.{ending}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}"), image)
    data = (tmp_path / f"a.{ending}").read_bytes()
    start = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[start : start + 3] == bytes([7, 1, 1])
    (tmp_path / f"b.{ending}").write_bytes(data[:start] + bytes([15]) + data[start + 1 :])
    with pytest.raises(ValueError, match="can't be read as an image: PIL drops half of its 16 bits"):
        read_image(tmp_path / f"b.{ending}")


@pytest.mark.parametrize("file", ["a.png", "a.tif", "a.dcm"])
def test_what_needs_simpleitk_says_so(tmp_path, monkeypatch, file):
    write_png(tmp_path / "a.png", DEEP)
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(
        ValueError, match=rf'{file} can\'t be read .*: SimpleITK is needed .*pip install "skmmcrf\[medical\]'
    ):
        read_image(tmp_path / file)


def test_missing_files_text_and_formats_that_are_programs_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png", "EPS")
    for name in ("a.png", "b.png"):
        with pytest.raises(ValueError, match=f"{name} can't be read as an image: it is none of BMP"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "c.png")


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
def test_files_of_several_images_are_refused(tmp_path, ending):
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=rf"a.{ending} can't be read as an image: it holds 2 images"):
        read_image(tmp_path / f"a.{ending}")


def test_opened_images_of_several_are_refused(tmp_path):
    pages = [Image.new("L", (8, 6), colour) for colour in ("red", "blue", "green")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as image:
        with pytest.raises(ValueError, match="a.tif can't be read: it holds 3 images"):
            pixels_of(image)
        image.seek(1)
        assert pixels_of(image.copy()).shape == (6, 8)


@pytest.mark.parametrize("values", [DEEP, DEEP.astype(np.uint8), UINT16])
@pytest.mark.parametrize("within", [True, False])
def test_pyramids_are_read_at_full_size(tmp_path, values, within):
    full = np.tile(values, (4, 4) + (1,) * (values.ndim - 2))
    options = {"photometric": "rgb" if values.ndim == 3 else "minisblack", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(full, subifds=2 if within else None, **options)
        writer.write(full[::2, ::2], subfiletype=1, **options)
        writer.write(full[::4, ::4], subfiletype=1, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), full)
    if values is not DEEP:
        with Image.open(tmp_path / "a.tif") as image:
            np.testing.assert_array_equal(pixels_of(image), full)


def test_pyramids_may_begin_with_their_smallest_version(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(UINT16[::2, ::2], subfiletype=1, metadata=None)
        writer.write(UINT16, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), UINT16)


def test_a_preview_without_its_image_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:  # as raw files of cameras are
        writer.write(UINT16[::2, ::2], subifds=1, subfiletype=1, metadata=None)
        writer.write(UINT16, metadata=None)
    with pytest.raises(ValueError, match="it holds a reduced version beside its image"):
        read_image(tmp_path / "a.tif")


def test_previews_of_cameras_are_not_read(tmp_path):
    photo, preview = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (4, 3), "red")
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "a.jpg").shape == (6, 8, 3)


@pytest.mark.parametrize("error", [struct.error, EOFError, MemoryError, KeyError])
def test_whatever_pil_raises_is_told(tmp_path, monkeypatch, error):
    (tmp_path / "a.png").touch()

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


@pytest.mark.parametrize("size", [(12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_of_16_bits_and_in_other_formats_are_refused_before_they_are_decoded(tmp_path, memory_growth, size):
    header = struct.pack(">IIBBBBB", *size, 16, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1_000_000), 9)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels)
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": size, "fortran_order": False, "descr": "|u1"})
        if size[0] < 20_000:
            file.truncate(size[0] * size[1] + 1000)  # a file with a hole takes no place

    def read():
        for name in ("a.png", "a.npy"):
            with pytest.raises(ValueError, match=rf"{name} can't be read as an image: .*(\(\d+ pixels\) exceeds|map)"):
                read_image(tmp_path / name)

    assert memory_growth(read) < 20_000_000


@pytest.mark.parametrize("name", ["a.npy", "a.NPY", "a"])
def test_arrays_of_numpy_are_read(tmp_path, name):
    for values in (DEEP, UINT16 / 65535, np.asfortranarray(UINT16)):
        with open(tmp_path / name, "wb") as file:
            np.save(file, values)
        np.testing.assert_array_equal(read_image(tmp_path / name), values)
        np.testing.assert_array_equal(read_image(tmp_path / name, as_labels=True), values)
    assert read_image(tmp_path / name, channels="RGB").shape == (5, 4, 3)
    with open(tmp_path / name, "wb") as file:
        np.save(file, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(ValueError, match="a.* can't be read as an image: "):
        read_image(tmp_path / name)


def test_truncated_files_are_told(tmp_path):
    write_png(tmp_path / "a.png", np.tile(DEEP, (20, 20, 1)))
    tifffile.imwrite(tmp_path / "a.tif", np.tile(DEEP, (20, 20, 1)), photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", np.tile(UINT16, (20, 20)))
    np.save(tmp_path / "a.npy", DEEP)
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    for name in ("a.png", "a.tif", "b.tif", "a.npy", "a.dcm"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(ValueError, match=f"{name} can't be read as an image: "):
            read_image(tmp_path / name)


def test_what_can_be_read_is_listed_where_a_file_is_something_else(tmp_path):
    for content in (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\x5c\x01\0\0" + bytes(500)):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match="it is none of BMP, GIF, JPEG, .*PNG, .*TIFF, WEBP, .npy and DICOM"):
            read_image(tmp_path / "a")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_channels_are_converted_as_pil_does(tmp_path, mode):
    image = Image.fromarray(RNG.integers(0, 256, (5, 4, 3), np.uint8)).convert("L" if mode == "I;16" else "RGB")
    image = image.convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(file)
    for channels, shape in (("L", (5, 4)), ("RGB", (5, 4, 3))):
        pixels = read_image(file, channels=channels)
        np.testing.assert_array_equal(pixels, read_opened(file, channels=channels))
        assert pixels.shape == shape
        if mode == "I;16":
            assert pixels.dtype == np.uint16
        elif mode == "1":
            assert pixels.dtype == bool
        else:
            np.testing.assert_array_equal(pixels, image.convert("RGB").convert(channels))


def test_16_bits_stay_16_bits_in_grey(tmp_path):
    write_png(tmp_path / "a.png", DEEP)
    grey = read_image(tmp_path / "a.png", channels="L")
    assert grey.dtype == np.uint16
    np.testing.assert_allclose(grey, DEEP @ [0.299, 0.587, 0.114], atol=1)
    write_png(tmp_path / "a.png", np.full((2, 2, 3), 65535, np.uint16))
    assert (read_image(tmp_path / "a.png", channels="L") == 65535).all()
    np.save(tmp_path / "a.npy", DEEP / np.float32(65535))
    np.testing.assert_allclose(read_image(tmp_path / "a.npy", channels="L"), grey / 65535, atol=1e-4)


def test_what_can_not_be_converted_is_told(tmp_path):
    np.save(tmp_path / "a.npy", DEEP[..., :2])
    with pytest.raises(
        ValueError, match=r"a.npy can't be read as an image: it has shape \(5, 4, 2\) .* converted to 'L'"
    ):
        read_image(tmp_path / "a.npy", channels="L")
    image = Image.new("L", (4, 5))
    image.save(tmp_path / "a.png")
    for read, source in ((read_image, tmp_path / "a.png"), (pixels_of, image)):
        with pytest.raises(ValueError, match="channels must be None, .* got 'gray'"):
            read(source, channels="gray")
        with pytest.raises(ValueError, match="channels must be None with as_labels"):
            read(source, as_labels=True, channels="L")


def pictures(folder):
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
    deep = rng.integers(0, 65535, (20, 24, 3), np.uint16)
    write_png(folder / "a.png", deep)
    tifffile.imwrite(folder / "a.tif", deep, photometric="rgb")
    np.save(folder / "a.npy", deep)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(deep[..., 0]), folder / "a.dcm")
    return pictures + [(folder / f"a.{ending}").read_bytes() for ending in ("png", "tif", "npy", "dcm")]


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
    originals = pictures(tmp_path)
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
                image = read_image(tmp_path / "a", as_labels=n % 2 == 0)
            except ValueError as error:
                if not str(error).startswith(f"{tmp_path / 'a'} can't be read as an image: "):
                    raise
            else:
                assert image.ndim in (2, 3)
                assert image.dtype.kind in "buif"
                n_read += 1

    assert memory_growth(read_all) < 50_000_000
    assert 0.05 < n_read / n_files < 0.95
