"""What a docstring says: its formula and its summary."""

from __future__ import annotations

import inspect
import re
from typing import Any


def formula(obj: Any) -> str:
    """The formula of a docstring: the first code after a colon or opening a paragraph.

    Empty if there is no such code above the first section, such as `Args:`. Of a loss
    of Keras, the line of code `loss = ...`, if the formula is one line.

    Example:
        >>> import keras_penalties as kp
        >>> formula(kp.penalties.L1)
        'Σ|x|'
    """
    text = inspect.cleandoc(obj.__doc__ or "")
    above = re.split(r"\n\w+:\n", text)[0]
    found = re.search(r"(?:\n\n|:\s)`([^`]+)`", above)
    found = found or re.search(r"\n```python\nloss = (.+)\n```", text)
    return " ".join(found[1].split()) if found else ""


def summary(obj: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    paragraph = inspect.cleandoc(obj.__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.split())
