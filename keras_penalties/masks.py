"""Masked outputs: what a mask leaves out has no part in a value nor in its gradient."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_penalties import checks
from keras_penalties.typing import Tensor


def spread_mask(mask: Any, x: Tensor) -> Tensor:
    """The mask, of the first axes of `x`, as it broadcasts to `x`: true where real.

    Raises:
        ValueError: if the mask's shape is not that of the first axes of `x`.
    """
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    given, shape = tuple(mask.shape), tuple(x.shape)
    pairs = zip(given, shape, strict=False)
    agree = all(a == b or None in (a, b) for a, b in pairs)
    if not 0 < len(given) <= len(shape) or not agree:
        checks.refuse("mask", f"the first axes of an output of shape {shape}", given)
    for _ in range(len(shape) - len(given)):
        mask = ops.expand_dims(mask, -1)
    return mask


def real_rows(mask: Tensor, x: Tensor) -> Tensor:
    """1 for each real row of `x` along its last axis, else 0: shape (..., 1).

    Raises:
        ValueError: if the mask tells the entries of one row apart.
    """
    if mask.shape[-1] != 1:
        expected = f"whole rows along the last axis of {tuple(x.shape)}"
        checks.refuse("mask", expected, tuple(mask.shape))
    return ops.cast(mask, x.dtype) * ops.ones_like(x[..., :1])


def real_mean(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over the real rows, 0 if there are none; and the number of these.

    Args:
        x: (..., units), with 0 in place of what is masked.
        mask: As `spread_mask` gives it.
    """
    axes = tuple(range(len(x.shape) - 1))
    count = ops.sum(real_rows(mask, x))
    return ops.sum(x, axis=axes) / ops.maximum(count, 1.0), count


def sum_and_count(x: Tensor, mask: Any) -> tuple[Tensor, Tensor]:
    """The sum over all axes except the last, of the real entries, and their number.

    Args:
        x: (..., units).
        mask: Of the first axes, or None.
    """
    axes = tuple(range(len(x.shape) - 1))
    if mask is None:
        return ops.sum(x, axis=axes), ops.cast(ops.size(x[..., 0]), x.dtype)
    real = ops.broadcast_to(spread_mask(mask, x), ops.shape(x))
    kept = ops.where(real, x, ops.zeros_like(x))
    return ops.sum(kept, axis=axes), ops.sum(ops.cast(real[..., 0], x.dtype))
