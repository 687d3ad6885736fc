"""Mask files: reading their foreground or their classes, and writing predictions as masks."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path, PureWindowsPath
from typing import Any, TypeAlias
from unicodedata import normalize

import numpy as np
from PIL import Image

from skmmcrf._shown import shown
from skmmcrf._typing import BoolArray, LabelsLike
from skmmcrf.field.labels import UNLABELLED
from skmmcrf.images.entries import as_array, as_sequence
from skmmcrf.images.files import palette_of, read_image

#: A value of a mask, a colour, or a bound such as ">127".
Value: TypeAlias = float | tuple[int, int, int] | str

# soft edges of masks of 0 and 255 have greater values below 255
_LARGEST_CLASS = 223

_LOSSY = (".jpg", ".jpeg")

# with ".png" the 255 that file systems take
_MOST_BYTES = 251

_BOUND = re.compile(r"(>=?) *(\d+(?:\.\d+)?)")


class MaskReader:
    """Reader of masks from files, which turns their values into labels.

    Parameters
    ----------
    foreground : int, tuple of int, str or None
        As in `load_image_pairs`.
    ignore_label : int, tuple of int, or None
    """

    def __init__(self, foreground: Value | None, ignore_label: Value | None) -> None:
        self.foreground = foreground
        self.ignore_label = ignore_label
        self._value = None if foreground == "auto" else foreground
        if self._value is not None:
            _test_of(self._value, "foreground")
        self._in_colours = any(np.shape(value) == (3,) for value in (foreground, ignore_label) if value is not None)
        self._colours: dict[int, tuple[list[int], Path]] = {}
        if ignore_label is not None:
            _test_of(ignore_label, "ignore_label")
            if ignore_label == foreground:
                raise ValueError(f"ignore_label must not be the foreground, got {shown(ignore_label)}")

    def read(self, file: Path) -> np.ndarray:
        """Read the values of a mask: an array (H, W, 1), or (H, W, 3) of colours."""
        mask = self._read_colours(file) if self._in_colours else read_image(file, as_labels=True)
        mask = mask.astype(np.uint8) if mask.dtype == bool else mask
        mask = mask[..., np.newaxis] if mask.ndim == 2 else mask
        if mask.ndim != 3 or mask.shape[2] not in (1, 3):
            raise ValueError(f"{file} must be a mask of shape (H, W), or of colours, got {mask.shape}")
        if not self._in_colours:
            self._check_palette(file, mask)
        return mask

    def _read_colours(self, file: Path) -> np.ndarray:
        mask, stored = read_image(file, channels="RGB"), read_image(file)
        if stored.ndim == 3 and stored.shape[2] in (2, 4):
            hidden = mask[stored[..., -1] == 0][np.newaxis]
            means_something = [] if self._value is None else [_test_of(self._value, "foreground")]
            if self._is_unlabelled(hidden).any() or any(test(hidden).any() for test in means_something):
                raise ValueError(
                    f"{file} has transparent pixels of a colour that is foreground or ignore_label, though no viewer "
                    "shows it: save it without alpha"
                )
        return mask

    def _check_palette(self, file: Path, mask: np.ndarray) -> None:
        """Refuse an index of a palette that has one colour here, and had another in a mask before."""
        palette = palette_of(file)
        if palette is None:
            return
        for index in np.unique(mask).tolist():
            colour, first = self._colours.setdefault(index, (palette[index], file))
            if colour != palette[index]:
                raise ValueError(
                    f"{first} and {file} have palettes in which the index {index} has different colours, so the "
                    "indices can't be labels: say the colour of the foreground, as foreground=(255, 0, 0)"
                )

    def labels_of(self, mask: np.ndarray, foreground: Value | None) -> np.ndarray:
        """Turn a mask, as `read` gives it, into labels 0, 1 and 255, or into its own values and 255."""
        labels = mask[..., 0] if foreground is None else _test_of(foreground, "foreground")(mask)
        labels = labels.astype(np.uint8)
        labels[self._is_unlabelled(mask)] = UNLABELLED
        return labels

    def find_foreground(self, masks: Mapping[Path, np.ndarray]) -> Value | None:
        """Find the value of foreground in all masks of a data set, as `read` gives them. None if they hold classes.

        Raises
        ------
        ValueError
            If no mask has the foreground. If "auto" finds several values that are not 0, and they are no classes. If
            a class is not an int from 0 to 255.

        Warns
        -----
        UserWarning
            If no mask has foreground, or "auto" finds a value that may be the label of a class.
        """
        foreground = self._only_value(masks) if self.foreground == "auto" else self.foreground
        if foreground is None:
            self._check_classes(masks)
            return None
        is_foreground = _test_of(foreground, "foreground")
        if not any(is_foreground(mask).any() for mask in masks.values()):
            if self.foreground != "auto":
                raise ValueError(
                    f"no mask has the foreground {shown(foreground)}: the masks hold {_told_values(masks)}"
                )
            warnings.warn("no mask has foreground", stacklevel=4)
        if self.foreground == "auto" and _may_be_class(foreground):
            warnings.warn(
                f"{foreground} is the only value of the masks that is not 0, so it becomes the label 1: give "
                f"foreground={foreground} if it is foreground, or foreground=None if it is one of several classes, "
                "which keeps its label",
                stacklevel=4,
            )
        return foreground

    def _is_unlabelled(self, mask: np.ndarray) -> BoolArray:
        if self.ignore_label is None:
            return np.zeros(mask.shape[:-1], bool)
        return _test_of(self.ignore_label, "ignore_label")(mask)

    def _only_value(self, masks: Mapping[Path, np.ndarray]) -> Value | None:
        found: set[Any] = set()
        for mask in masks.values():
            found |= _count_values(mask[~self._is_unlabelled(mask)]).keys()
        others = found - {0}
        if _are_classes(found) and not any(file.suffix.lower() in _LOSSY for file in masks):
            return None
        if len(others) > 1:
            raise ValueError(
                f"the masks hold {_told_values(masks)}: give the value of the foreground, such as foreground=255, and "
                "of unlabelled pixels, if any, such as ignore_label=255. foreground='>127' takes all values above 127, "
                "for masks with soft edges. foreground=None takes the values as the labels of several classes"
            )
        return others.pop() if others else 1

    def _check_classes(self, masks: Mapping[Path, np.ndarray]) -> None:
        for file, mask in masks.items():
            found = _count_values(mask[~self._is_unlabelled(mask)])
            if self.ignore_label is not None and UNLABELLED in found:
                raise ValueError(
                    f"{file} holds the class {UNLABELLED}, which means unlabelled in the masks that are given, beside "
                    f"ignore_label={shown(self.ignore_label)}: give fit arrays of labels"
                )
            others = [value for value in found if not _is_label(value)]
            if others:
                raise ValueError(
                    f"{file} holds {shown(others[0])}, but labels of classes must be int from 0 to 255: give the value "
                    "of the foreground if there is one, or give fit arrays of labels"
                )


class MaskFiles(Mapping):
    """The masks of files, each read when it is asked for.

    Parameters
    ----------
    read : callable
        As `MaskReader.read`.
    files : sequence of Path
    """

    def __init__(self, read: Callable[[Path], np.ndarray], files: Sequence[Path]) -> None:
        self.read = read
        self.files = files

    def __getitem__(self, file: Path) -> np.ndarray:
        return self.read(file)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def save_masks(
    folder: str | PathLike[str],
    names: Sequence[str],
    labels: LabelsLike,
    *,
    foreground: int | None = None,
    overwrite: bool = False,
) -> None:
    """Save predictions as mask files.

    Each is a PNG file of 8 bits, which holds the labels as they are. Viewers show small labels such as 0, 1 and 2
    nearly black. With ``foreground=255`` they show the foreground of two labels white.

    Parameters
    ----------
    folder : path
        It is made if it is missing.
    names : sequence of str
        The names of the files, without the ending ``.png``, such as ``data.names`` of the loaders.
    labels : array of shape (n, H, W), or sequence of arrays (H, W)
        Labels from 0 to 255, as `predict` gives them. With `foreground` they are 0, and one other value for all
        foreground.
    foreground : int or None, default=None
        The value, from 1 to 255, that the files have instead of the label of foreground. It is for two labels alone: a
        class of several would change its label. None saves the labels as they are.
    overwrite : bool, default=False
        Whether existing files may be replaced.

    Raises
    ------
    ValueError, TypeError
        If a name comes twice or has a folder in it. If the numbers of names and labels differ. If a label is not an
        int from 0 to 255. If `foreground` is given, and the labels have several values that are not 0.
    FileExistsError
        If a file exists. No file is written in case of any of these errors.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_masks(f"{folder}/classes", ["a"], [[[0, 1, 2]]])
    ...     save_masks(f"{folder}/foreground", ["a"], [[[0, 1, 1]]], foreground=255)
    ...     print(read_image(f"{folder}/classes/a.png"), read_image(f"{folder}/foreground/a.png"))
    [[0 1 2]] [[  0 255 255]]
    """
    if foreground is not None and not (isinstance(foreground, Integral) and 1 <= foreground <= 255):
        raise ValueError(f"foreground must be an int from 1 to 255, or None, got {shown(foreground)}")
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of str, got {shown(names)}")
    for name in names:
        check_plain_name(name, "a name")
        if len(os.fsencode(name)) > _MOST_BYTES:
            raise ValueError(f"a name must be no longer than {_MOST_BYTES} bytes, got {shown(name)}")
    files = [Path(folder) / f"{name.removesuffix('.png')}.png" for name in names]
    by_name = {normalize("NFC", file.name.casefold()): file.name for file in files}  # for some systems a is A
    if len(by_name) < len(files):
        twice = Counter(file.name for file in files) - Counter(by_name.values())
        raise ValueError(f"names must differ, got {some_of(list(twice))} more than once")
    entries, _ = as_sequence(labels, "labels", dimensions=(3,))
    if len(entries) != len(files):
        raise ValueError(f"names and labels must have the same length, got {len(files)} and {len(entries)}")
    masks = [as_array(entries[n], f"labels[{n}]") for n in range(len(files))]
    for n, mask in enumerate(masks):
        if mask.ndim != 2 or 0 in mask.shape or mask.dtype.kind not in "buif":
            raise ValueError(f"labels[{n}] must be numbers of shape (H, W), none of them 0, got {mask.shape}")
    others = set().union(*(np.unique(mask).tolist() for mask in masks)) - {0}
    if foreground is None and not all(map(_is_label, others)):
        raise ValueError(
            f"labels must be int from 0 to 255, got {[v for v in others if not _is_label(v)][:5]}: numpy.save writes "
            "other labels"
        )
    if foreground is not None and len(others) > 1:
        raise ValueError(
            f"labels must be 0 and one other value if foreground is given, got {sorted(others)[:5]} beside 0: leave "
            "foreground out, which saves them as they are"
        )
    if not overwrite and (existing := [file for file in files if os.path.lexists(file)]):
        raise FileExistsError(
            f"{some_of(existing)} exists already: give another folder, or overwrite=True to replace it"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file, mask in zip(files, masks):
        if overwrite:
            file.unlink(missing_ok=True)  # nothing is written through a link
        with file.open("xb") as stream:
            values = mask if foreground is None else np.where(mask != 0, foreground, 0)
            Image.fromarray(values.astype(np.uint8)).save(stream, "PNG")


def check_plain_name(name: str, what: str) -> None:
    """Refuse a name that would lead into another folder."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, got {type(name).__name__}")
    # names of Windows have all the separators
    if name in ("", "..") or "\0" in name or PureWindowsPath(name).name != name:
        raise ValueError(f"{what} must be a plain name, without a folder, got {shown(name)}")


def some_of(names: Sequence[object]) -> str:
    """Name the first five, and the number of the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shown(str(name)) for name in names[:5]) + more


def _are_classes(values: set[Any]) -> bool:
    """Whether values of masks are labels of more than two classes, numbered from 0 on without large gaps, and 255."""
    labels = values - {UNLABELLED}
    if len(labels) <= 2 or not all(map(_is_label, labels)):
        return False
    return max(labels) < min(2 * len(labels), _LARGEST_CLASS + 1)


def _may_be_class(value: Any) -> bool:
    """Whether the only value of masks that is not 0 may be the label of a class, and is not 1."""
    return _is_label(value) and 1 < value <= _LARGEST_CLASS


def _is_label(value: Any) -> bool:
    """Whether a value of a mask can be a label of 8 bits. Colours can't."""
    return not isinstance(value, tuple) and value == int(value) and 0 <= value <= 255


def _test_of(value: Value, name: str) -> Callable[[np.ndarray], BoolArray]:
    """Make a function that tells which pixels (H, W) of a mask (H, W, 1 or 3) have a value."""
    if isinstance(value, str) and name == "foreground" and (bound := _BOUND.fullmatch(value)):
        compare = np.greater_equal if bound[1] == ">=" else np.greater
        return lambda mask: compare(mask.max(axis=-1), float(bound[2]))
    if np.shape(value) in ((), (3,)) and all(isinstance(each, Real) for each in np.ravel(value)):
        return lambda mask: (mask == value).all(axis=-1)
    more = ', a bound such as ">127", or "auto"' if name == "foreground" else ", or None"
    raise ValueError(f"{name} must be a value of the masks, a colour (red, green, blue){more}, got {shown(value)}")


def _count_values(mask: np.ndarray) -> Counter[Any]:
    """Count the pixels of each value. Greys among colours become one number."""
    if mask.shape[-1] == 1:
        values, counts = np.unique(mask, return_counts=True)
        return Counter(dict(zip(values.tolist(), counts.tolist())))
    codes, counts = np.unique(mask.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1]), return_counts=True)
    colours = np.stack([codes >> 32, codes >> 16 & 0xFFFF, codes & 0xFFFF], axis=1).tolist()
    return Counter({c[0] if len(set(c)) == 1 else tuple(c): n for c, n in zip(colours, counts.tolist())})


def _told_values(masks: Mapping[Path, np.ndarray]) -> str:
    pixels: Counter[Any] = Counter()
    first: dict[Any, Path] = {}
    for file, mask in masks.items():
        counts = _count_values(mask)
        pixels += counts
        first = dict.fromkeys(counts, file) | first
    told = [f"{value} in {count} pixels" for value, count in pixels.most_common(6)]
    rarest = pixels.most_common()[-1][0]
    return f"{', '.join(told)}{' and more' if len(pixels) > 6 else ''} (the rarest is {rarest}, in {first[rarest]})"
