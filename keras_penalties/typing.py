"""Names for what Keras has no static types for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the active backend. Keras has no static type for it."""

Pullback: TypeAlias = Callable[[Tensor], Tensor]
"""From the gradient in a function's value to that in its argument."""
