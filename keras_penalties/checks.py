"""Argument checks, with errors in Keras' form: which, what was expected, what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any, NoReturn


def refuse(argument: str, expected: str, received: Any) -> NoReturn:
    """Raise the one form of error that this package has for a bad argument."""
    raise ValueError(
        f"Invalid value for argument `{argument}`. Expected {expected}. "
        f"Received: {argument}={received!r} (of type {type(received).__name__})"
    )


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
