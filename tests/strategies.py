"""Inputs for the laws, from a small pool of shapes: a compiler traces each one anew."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_penalties.penalties import Penalty

BACKEND = keras.backend.backend()
WIDE = "float64" if BACKEND == "tensorflow" else "float32"
"""Keras honours float64 on TensorFlow only."""

POOL = ((6,), (4, 3), (2, 2, 3))


def inside(penalty: Penalty, x: np.ndarray) -> np.ndarray:
    """`x` moved into the penalty's domain, in the same order."""
    low, high = penalty.domain
    if np.isfinite(low) and np.isfinite(high):
        return low + (high - low) / (1.0 + np.exp(-x))
    if np.isfinite(low):
        return low + np.abs(x)
    return high - np.abs(x) if np.isfinite(high) else x


def generic(penalty: Penalty, seed: int = 0) -> list[np.ndarray]:
    """One array for each shape that the penalty takes: no zeros, no ties."""
    rng = np.random.default_rng(seed)
    shapes = penalty.example_shapes()
    return [inside(penalty, rng.standard_normal(shape)) for shape in shapes]


def special(penalty: Penalty) -> list[np.ndarray]:
    """Where formulas break: at 0, at ties, at equal rows, at ±1, half of it zero."""
    kinds = []
    for x in generic(penalty, seed=1):
        halved = x.copy()
        halved.reshape(-1)[::2] = 0.0
        rows = np.broadcast_to(x[:1], x.shape)
        kinds += [0.0 * x, 0.0 * x + 0.7, halved, rows, np.sign(x)]
    return [np.clip(x, *penalty.domain) for x in kinds]


def extreme(penalty: Penalty) -> list[np.ndarray]:
    """Huge, tiny, both at once, and the ends of a bounded domain."""
    x = generic(penalty, seed=2)[-1]
    mixed = x.copy()
    mixed.reshape(-1)[::3] *= 1e30
    mixed.reshape(-1)[1::3] *= 1e-30
    one_sided = [1e30 * np.abs(x), -1e30 * np.abs(x)]
    kinds = [1e30 * x, 1e-30 * x, mixed, *one_sided]
    return [np.clip(x, *penalty.domain) for x in kinds]


def largest(penalty: Penalty) -> list[np.ndarray]:
    """All entries, some or one at the end of float32."""
    x = generic(penalty, seed=2)[-1]
    some = np.arange(x.size).reshape(x.shape) % 3 == 0
    one = x.copy()
    one.reshape(-1)[x.size // 2] = -3.4e38
    kinds = [3.4e38 * np.sign(x), np.where(some, 3.4e38, x), 0.0 * x - 3.4e38, one]
    return [np.clip(x, *penalty.domain) for x in kinds]


def huge(x: np.ndarray) -> Iterator[np.ndarray]:
    """One entry, or all, at ±1e30 and at the ends of float32."""
    for size in (1e30, 3.4e38):
        yield size * np.sign(x)
        for s in (size, -size):
            one = np.array(x, "float64")
            one.reshape(-1)[x.size // 2] = s
            yield from (one, np.full(x.shape, s))


def tensors(
    bound: float = 4.0, shapes: tuple[tuple[int, ...], ...] = POOL
) -> st.SearchStrategy[np.ndarray]:
    """Arrays of the pool's shapes with entries up to `bound`, 0 and ties among them."""
    entries = st.floats(-bound, bound, width=32)
    return st.sampled_from(shapes).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=entries)
    )
