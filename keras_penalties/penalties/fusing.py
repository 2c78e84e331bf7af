"""Compiled sums and proximal maps of large weights, on TensorFlow.

Penalties that are alike share them, so that a model with many equal layers compiles one
function for all. The last few are kept, and not all: each takes memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras_penalties.compiling import fused
from keras_penalties.numerics import fused_sum
from keras_penalties.typing import Tensor

KEPT = 64
"""How many compiled functions of a kind are kept."""


class _Alike:
    """A penalty as a key, equal to the keys of penalties that are alike."""

    def __init__(self, penalty: Any) -> None:
        self.penalty = penalty

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and self.penalty.alike(other.penalty)

    def __hash__(self) -> int:
        return hash(type(self.penalty))


def fused_map(penalty: Any, x: Tensor, t: Tensor) -> Tensor:
    """`penalty.compute_prox(x, t)`, compiled as one function."""
    shapes = tuple(x.shape), tuple(t.shape), x.dtype
    moved: Tensor = _map(_Alike(penalty), *shapes)(x, t)
    return moved


def fused_total(penalty: Any, x: Tensor) -> Tensor:
    """The sum of `penalty.entrywise(x)`, compiled as one function."""
    return _total(_Alike(penalty), tuple(x.shape), x.dtype)(x)


@functools.lru_cache(KEPT)
def _map(key: _Alike, *shapes: Any) -> Callable[..., Tensor]:
    return fused(key.penalty.compute_prox)


@functools.lru_cache(KEPT)
def _total(key: _Alike, *shape: Any) -> Callable[[Tensor], Tensor]:
    return fused_sum(key.penalty.entrywise)
