"""Values as error messages quote them."""

import re
import reprlib

_LENGTH = 200  # most paths are shorter


class _Repr(reprlib.Repr):
    """`repr` with an end to it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = 20
        self.maxarray = 20
        self.maxstring = self.maxother = _LENGTH

    def repr_int(self, x: int, level: int) -> str:
        return self.repr_instance(x, level)  # Python writes out no number of more than 4300 digits


_REPR = _Repr()


def shown(value: object) -> str:
    """Give the `repr` of a value on one line, cut to a length that fits into a message.

    Examples
    --------
    >>> shown("dice")
    "'dice'"
    >>> shown(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...]'
    """
    text = re.sub(r"\s*\n\s*", " ", _REPR.repr(value))
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."


def shortened(error: object) -> str:
    """Give the message of an error that may quote anything, cut to a length that fits into another message.

    Examples
    --------
    >>> shortened(ValueError("it is damaged"))
    'it is damaged'
    >>> len(shortened("x" * 10_000))
    1000
    """
    text = str(error)
    return text if len(text) <= 1000 else f"{text[:997]}..."
