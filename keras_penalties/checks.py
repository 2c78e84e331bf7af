"""Argument checks, with errors in Keras' form: which, what was expected, what came."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import numpy as np
from keras import ops


def refuse(argument: str, expected: str, received: Any) -> NoReturn:
    """Raise the one form of error that this package has for a bad argument."""
    raise ValueError(
        f"Invalid value for argument `{argument}`. Expected {expected}. "
        f"Received: {argument}={received!r} (of type {type(received).__name__})"
    )


def near(name: Any, known: Collection[str]) -> str:
    """A hint at the known names that come near, to end a sentence with."""
    found = difflib.get_close_matches(str(name), sorted(set(known)), n=3, cutoff=0.5)
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
        refuse(argument, expected, value)
    result = float(value)
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
    if value not in allowed:
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


def floats(
    argument: str, value: Any, rank: int | None = None, low: float = -math.inf
) -> Any:
    """An array of finite numbers as nested lists of floats, which a config can hold."""
    kind = "numbers" if rank is None else f"an array of rank {rank} of numbers"
    expected = f"finite {kind}, {low} or more" if low > -math.inf else f"finite {kind}"
    try:
        if ops.is_tensor(value) or hasattr(value, "value"):  # or a Keras variable
            value = ops.convert_to_numpy(value)
        array = np.asarray(value)
        if array.dtype.kind in "bOSU":
            refuse(argument, expected, value)
        array = array.astype("float64")
    except (TypeError, ValueError):
        refuse(argument, expected, value)
    if rank not in (None, array.ndim):
        refuse(argument, expected, value)
    if not np.all(np.isfinite(array) & (array >= low)):
        refuse(argument, expected, value)
    return array.tolist()


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
