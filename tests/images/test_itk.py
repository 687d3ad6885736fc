import struct
import sys

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from skmmcrf.images.checking import check_images
from skmmcrf.images.files import read_image
from skmmcrf.images.itk import read_dicom, read_whole

VALUES = np.arange(20, dtype=np.int16).reshape(4, 5) - 10
WINDOW = {"0028|1050": "2\\80", "0028|1051": "9\\10"}


def write_dicom(file, values, tags=None, changes=()):
    """A slice in DICOM, with tags, in whose bytes something is changed."""
    image = SimpleITK.GetImageFromArray(values, isVector=values.shape[-1] == 3)
    for tag, value in (tags or {}).items():
        image.SetMetaData(tag, value)
    SimpleITK.WriteImage(image, file, imageIO="GDCMImageIO")
    data = file.read_bytes()
    for old, new in changes:
        assert data.count(old) == 1
        data = data.replace(old, new)
    file.write_bytes(data)


def explicit_dicom(pixels, syntax=b"1.2.840.10008.1.2.1\0", more=b""):
    """A slice in DICOM as most devices write it: each element with its kind."""

    def element(group, number, kind, value):
        length = struct.pack("<HI", 0, len(value)) if kind in (b"OW", b"SQ") else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + kind + length + value

    numbers = {0x02: 1, 0x10: pixels.shape[0], 0x11: pixels.shape[1], 0x100: 16, 0x101: 16, 0x102: 15, 0x103: 0}
    image = {number: (b"US", struct.pack("<H", value)) for number, value in numbers.items()}
    image[0x04] = (b"CS", b"MONOCHROME2 ")
    return b"".join(
        [
            bytes(128) + b"DICM",
            element(2, 0x10, b"UI", syntax),
            element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
            element(8, 0x1140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0)),
            more,
            *(element(0x28, number, *image[number]) for number in sorted(image)),
            element(0x7FE0, 0x10, b"OW", pixels.tobytes()),
        ]
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.dcm"


def test_the_first_window_maps_to_0_and_1(file):
    write_dicom(file, VALUES, WINDOW)
    image = read_dicom(file)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, np.clip((VALUES - 1.5) / 8 + 0.5, 0, 1))
    assert image.min() == 0
    assert image.max() == 1
    write_dicom(file, VALUES, WINDOW | {"0028|1056": "LINEAR_EXACT"})
    np.testing.assert_allclose(read_dicom(file), np.clip((VALUES - 2) / 9 + 0.5, 0, 1), rtol=1e-6)


def test_the_window_is_of_rescaled_values(file):
    write_dicom(file, 3 * VALUES - 7, WINDOW | {"0028|1052": "-7", "0028|1053": "3"})
    np.testing.assert_allclose(read_dicom(file), np.clip((3 * VALUES - 8.5) / 8 + 0.5, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_unsigned_values_without_a_window_stay_as_they_are(file, dtype, shape):
    values = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    write_dicom(file, values)
    image = read_dicom(file)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, values)


def test_masks_stay_as_they_are_whatever_their_window(file):
    write_dicom(file, VALUES, WINDOW)
    np.testing.assert_array_equal(read_dicom(file, as_labels=True), VALUES)


@pytest.mark.parametrize(
    ("values", "tags", "changes", "message"),
    [
        (VALUES, {}, [], "has no window, and pixels of int16: scale them to .0, 1."),
        (VALUES, WINDOW | {"0028|1056": "SIGMOID"}, [], "window has the function SIGMOID: scale"),
        (VALUES, WINDOW | {"0028|1051": "1"}, [], "window has the width 0: scale"),
        (VALUES, WINDOW | {"0028|1051": "nan"}, [], "window has the width nan: scale"),
        (np.zeros((3, 4, 5), np.uint8), {}, [], "it holds 3 slices: give each as an array"),
        (VALUES, WINDOW, [(b"MONOCHROME2", b"MONOCHROME1")], "its pixels are MONOCHROME1, not MONOCHROME2 or RGB"),
    ],
)
def test_what_has_no_sure_meaning_is_refused(file, values, tags, changes, message):
    write_dicom(file, values, tags, changes)
    with pytest.raises(ValueError, match=f"a.dcm can't be read as an image: .*{message}"):
        read_image(file)


def test_dicom_is_known_by_its_ending_or_its_magic(file, tmp_path):
    write_dicom(file, VALUES, WINDOW)
    for name in ("A.DCM", "IM0001"):
        (tmp_path / name).write_bytes(file.read_bytes())
        (image,) = check_images([str(tmp_path / name)])
        assert image.shape == (4, 5, 1)
    assert read_image(file, channels="RGB").shape == (4, 5, 3)


def test_dicom_without_its_magic_is_refused(tmp_path):
    (tmp_path / "a.DCM").write_bytes(bytes(500))
    with pytest.raises(ValueError, match=r"a.DCM can't be read as an image: it lacks the letters DICM"):
        read_image(tmp_path / "a.DCM")


def test_elements_with_their_kinds_are_read(file):
    pixels = np.arange(20, dtype=np.uint16).reshape(4, 5)
    file.write_bytes(explicit_dicom(pixels))
    np.testing.assert_array_equal(read_dicom(file), pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"more": struct.pack("<HH2sHI", 8, 0x2000, b"OB", 0, 2**31)}, "it is truncated, or damaged"),
        ({"more": struct.pack("<HH2sHI", 8, 0x2000, b"XX", 0, 2**31)}, "it is damaged"),
        ({"more": struct.pack("<HH2sHIHHI", 8, 0x2000, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**31)}, "it is truncated"),
        ({"syntax": b"1.2.840.10008.1.2.4.50"}, "it is compressed, by the transfer syntax 1.2.840.10008.1.2.4.50"),
        ({"more": struct.pack("<HH2sHI", 0x28, 0x3000, b"SQ", 0, 0)}, "its values need a look-up table"),
    ],
)
def test_elements_that_gdcm_would_take_memory_for_are_refused_before(file, memory_growth, options, message):
    file.write_bytes(explicit_dicom(np.zeros((4, 5), np.uint16), **options))

    def read():
        with pytest.raises(ValueError, match=message):
            read_dicom(file)

    assert memory_growth(read) < 20_000_000


def test_bombs_are_refused_before_they_are_decoded(file, memory_growth):
    write_dicom(file, np.zeros((4, 5), np.uint16))
    data = file.read_bytes()
    rows, columns = (bytes([0x28, 0, tag, 0]) + b"\2\0\0\0" for tag in (0x10, 0x11))
    for start in (rows, columns):
        at = data.index(start) + 8
        data = data[:at] + b"\xff\xff" + data[at + 2 :]
    file.write_bytes(data)

    def read():
        with pytest.raises(ValueError, match=r"Image size \(4294836225 pixels\) exceeds limit"):
            read_dicom(file)

    assert memory_growth(read) < 20_000_000


def test_no_limit_is_none(file, monkeypatch):
    write_dicom(file, np.zeros((4, 5), np.uint16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 19)
    with pytest.raises(ValueError, match=r"\(20 pixels\) exceeds limit of 19 pixels"):
        read_dicom(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_dicom(file).shape == (4, 5)


def test_files_are_read_as_their_header_says_or_not_at_all(tmp_path):
    values = np.arange(60, dtype=np.uint16).reshape(4, 5, 3)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=True), tmp_path / "a.png")
    options = {"file": tmp_path / "a.png", "image_io": "PNGImageIO", "needed_for": "colours"}
    np.testing.assert_array_equal(read_whole(shape=(4, 5, 3), dtype=np.dtype(np.uint16), **options), values)
    for shape, dtype in (((4, 5), np.uint16), ((4, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="neither PIL nor SimpleITK reads colours"):
            read_whole(shape=shape, dtype=np.dtype(dtype), **options)
    with pytest.raises(ValueError, match="SimpleITK can't read it, give an array instead: "):
        read_whole(shape=(4, 5, 3), dtype=np.dtype(np.uint16), **options | {"image_io": "TIFFImageIO"})


def test_a_missing_simpleitk_names_the_extra(file, monkeypatch):
    write_dicom(file, VALUES, WINDOW)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ValueError, match=r'SimpleITK is needed for DICOM: pip install "skmmcrf\[medical\]"'):
        read_dicom(file)
