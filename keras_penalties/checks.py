"""Argument checks. An error says which argument, what was expected, what was given."""

from __future__ import annotations

import difflib
import math
import numbers
import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from keras import ops


class _Short(reprlib.Repr):
    """The repr of any object, a few items of each container, arrays by their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxlong = self.maxother = 200

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to print an integer of more than some 4,300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 1000 else "a huge integer"

    def repr_instance(self, x: Any, level: int) -> str:
        """An array or a tensor by its shape and dtype: its entries may be millions."""
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is not None and dtype is not None and len(shape) > 0:
            return f"<{type(x).__name__} of shape {tuple(shape)}, dtype {dtype}>"
        return super().repr_instance(x, level)


_SHORT = _Short()


def shortened(text: str, limit: int = 500) -> str:
    """A text with its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]} [{left_out} characters left out] {text[-half:]}"


def shown(value: Any) -> str:
    """A value as an error message shows it: its repr, at most some 500 characters.

    Example:
        >>> shown(np.zeros((3, 2))), shown("l1")
        ('<ndarray of shape (3, 2), dtype float64>', "'l1'")
    """
    return shortened(_SHORT.repr(value))


def refuse(argument: str, expected: str, received: Any) -> NoReturn:
    """Raise the one form of error that this package has for a bad argument."""
    what = shortened(expected.rstrip("."), 1000)
    raise ValueError(
        f"Invalid value for argument `{argument}`. "
        f"Expected {what}{'' if what.endswith('?') else '.'} "
        f"Received: {argument}={shown(received)} (of type {type(received).__name__})"
    )


def near(name: Any, known: Collection[str]) -> str:
    """A hint at the known names that are similar, to end a sentence with."""
    name = str(name)[:100]
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def number(
    argument: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A finite number in a range, as a Python float. Numpy scalars are accepted."""
    ends = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
    expected = f"a finite number in {ends}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        if tuple(getattr(value, "shape", (0,))) in ((), (1,)):
            expected += f". Write `float({argument})` for an array of one number"
        refuse(argument, expected, value)
    try:
        result = float(value)
    except OverflowError:  # an integer beyond the largest float
        refuse(argument, expected, value)
    inside = low <= result <= high and math.isfinite(result)
    if not inside or (open_low and result == low) or (open_high and result == high):
        refuse(argument, expected, value)
    return result


def non_negative(argument: str, value: Any) -> float:
    """A finite number that is zero or more."""
    return number(argument, value, 0.0)


def positive(argument: str, value: Any) -> float:
    """A finite number above zero."""
    return number(argument, value, 0.0, open_low=True)


def fraction(argument: str, value: Any) -> float:
    """A number strictly between 0 and 1."""
    return number(argument, value, 0.0, 1.0, open_low=True, open_high=True)


def integer(argument: str, value: Any, low: int = 1) -> int:
    """A whole number, `low` or more."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        refuse(argument, f"an integer, {low} or more", value)
    if value < low:
        refuse(argument, f"an integer, {low} or more", value)
    return int(value)


def one_of(argument: str, value: Any, allowed: Collection[Any]) -> Any:
    """One of a few allowed values."""
    try:
        known = value in allowed
    except (TypeError, ValueError):  # not hashable, or an array
        known = False
    if not known:
        names = ", ".join(repr(a) for a in allowed)
        refuse(argument, f"one of {{{names}}}", value)
    return value


def instance(argument: str, value: Any, expected: type | tuple[type, ...]) -> Any:
    """A value of a class, or of one of some classes."""
    if not isinstance(value, expected):
        classes = expected if isinstance(expected, tuple) else (expected,)
        names = " or ".join(cls.__name__ for cls in classes)
        refuse(argument, f"an instance of {names}", value)
    return value


def mapping(argument: str, value: Any, example: str) -> dict[str, Any]:
    """A dict from names to something, as a new dict.

    Args:
        argument: The name of the user's argument.
        value: What the user gave.
        example: A dict that the error message shows, as Python source.
    """
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        refuse(argument, f"a dict from names to values, such as {example}", value)
    return dict(value)


def floats(
    argument: str, value: Any, rank: int | None = None, low: float = -math.inf
) -> Any:
    """An array of finite numbers as nested lists of floats, which a config can hold."""
    return array(argument, value, rank, low).tolist()


def array(
    argument: str, value: Any, rank: int | None = None, low: float = -math.inf
) -> np.ndarray:
    """A copy of an array of finite numbers, in float32 if it came so, else float64."""
    kind = "numbers" if rank is None else f"an array of rank {rank} of numbers"
    expected = f"finite {kind}, {low} or more" if low > -math.inf else f"finite {kind}"
    try:
        if ops.is_tensor(value) or hasattr(value, "value"):  # or a Keras variable
            value = ops.convert_to_numpy(value)
        found = np.asarray(value)
        if found.dtype.kind in "bOSU":
            refuse(argument, expected, value)
        found = found.astype("float32" if found.dtype == "float32" else "float64")
    except (TypeError, ValueError, OverflowError):
        refuse(argument, expected, value)
    if rank not in (None, found.ndim):
        refuse(argument, expected, value)
    if not np.all(np.isfinite(found) & (found >= low)):
        refuse(argument, expected, value)
    return found


def axes(argument: str, value: Any) -> int | list[int]:
    """An axis, or a list of different ones."""
    given = list(value) if isinstance(value, Sequence) else [value]
    whole = all(
        isinstance(axis, numbers.Integral) and not isinstance(axis, bool)
        for axis in given
    )
    if not given or not whole or len(set(given)) < len(given):
        refuse(argument, "an axis, or a list of different ones", value)
    found = [int(axis) for axis in given]
    return found if isinstance(value, Sequence) else found[0]
