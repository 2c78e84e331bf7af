"""What the docstring of an object says: its formula and its summary."""

from __future__ import annotations

from typing import Any

from keras_penalties_cli import catalogue


def formula(obj: Any) -> str:
    """The formula of a docstring: the first code after a colon or opening a paragraph.

    Example:
        >>> import keras_penalties as kp
        >>> formula(kp.penalties.L1)
        'Σ|x|'
    """
    return catalogue.formula(obj.__doc__)


def summary(obj: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return catalogue.summary(obj.__doc__)
