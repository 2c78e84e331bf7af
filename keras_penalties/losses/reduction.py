"""From a loss' values to one number: which samples count, and how much.

Weights and masks belong to samples, so they lie on the first axes of the values. What
is masked, unknown or has the weight 0 is absent: it has no part in the result nor in a
gradient. For the gradient it is not enough to leave out the value, since 0 times an
infinite slope is NaN: the absent *inputs* are replaced before the loss is computed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import unless_empty
from keras_penalties.typing import Tensor


def reduced(
    values: Tensor,
    reduction: str | None,
    sample_weight: Tensor = None,
    masks: Sequence[Tensor] = (),
) -> Tensor:
    """The loss of a batch from its values, as `keras.losses.Loss` reduces them.

    A batch without samples costs 0: Keras gives NaN or an empty tensor, by backend.

    Under `tf.distribute` a mean is divided by the number of replicas, as in Keras.

    Args:
        values: One value for each sample, in float32 or float64.
        reduction: `"sum"`, `"sum_over_batch_size"` or `"mean"` (the same), which divide
            by the number of samples that no mask leaves out,
            `"mean_with_sample_weight"`, which divides by the sum of their weights, and
            None or `"none"`, which keeps the values.
        sample_weight: Multiplies the values. It has their first axes: of values
            (batch, time) one of the shapes (batch,), (batch, 1), (batch, time) or
            (batch, time, 1), or it is one number for all.
        masks: Each is 0 or False for the samples that are absent, None, or of such a
            shape.

    Raises:
        ValueError: for a weight or a mask of another shape.
    """
    masks = [mask for mask in masks if mask is not None]
    if sample_weight is None and not masks:
        return _reduced(values, reduction)
    valid = functools.reduce(
        ops.logical_and,
        (_on("mask", ops.cast(mask, "bool"), values) for mask in masks),
        ops.ones_like(values, dtype="bool"),
    )
    weight = valid = ops.cast(valid, values.dtype)
    if sample_weight is not None:
        given = ops.convert_to_tensor(sample_weight, dtype=values.dtype)
        given = _on("sample_weight", given, values)
        # Not by a product: what is absent may have a weight that is NaN.
        weight = ops.where(valid > 0, given, ops.zeros_like(values))
    values = ops.where(weight != 0, values, ops.zeros_like(values))
    if reduction == "mean_with_sample_weight":
        weight, reduction = _over(weight, ops.mean(weight)), "sum_over_batch_size"
    elif masks and reduction in ("sum_over_batch_size", "mean"):
        weight = _over(weight, ops.mean(valid))
    return _reduced(values, reduction, weight)


def _reduced(values: Tensor, reduction: str | None, weight: Tensor = None) -> Tensor:
    if reduction in (None, "none"):
        return _AsKeras("loss", reduction, values.dtype)(0.0, values, weight)
    if 0 in values.shape:
        return ops.sum(values)
    result = _AsKeras("loss", reduction, values.dtype)(0.0, values, weight)
    return unless_empty(result, values)


class _AsKeras(keras.losses.Loss):
    """Keras' own reduction, of values and of weights that have their shape."""

    def call(self, _: Tensor, values: Tensor) -> Tensor:
        return values


def _over(weight: Tensor, share: Tensor) -> Tensor:
    """The weights, so that a mean over all values is one over the share that counts."""
    nobody = share == 0
    safe = ops.where(nobody, ops.ones_like(share), share)
    return ops.where(nobody, ops.zeros_like(weight), weight / safe)


def _on(name: str, x: Tensor, values: Tensor) -> Tensor:
    """A weight or a mask of samples, in the shape of their values."""
    fitted = on_first_axes(x, values.shape)
    if fitted is None:
        checks.refuse(
            name,
            f"one entry for each value of the loss, which has the shape "
            f"{tuple(values.shape)}, or for each of its first axes",
            tuple(x.shape),
        )
    return ops.broadcast_to(fitted, ops.shape(values))


def on_first_axes(x: Tensor, shape: Sequence[int | None]) -> Tensor | None:
    """`x`, its axes on the first ones of `shape`, so that it broadcasts to that.

    None if it doesn't fit: an axis of 1 in the place of another length counts as
    missing, except for the first, which is the samples'.
    """
    rank = len(shape)
    while len(x.shape) > rank and x.shape[-1] == 1:
        x = ops.squeeze(x, -1)
    if len(x.shape) > rank:
        return None
    sizes = zip(x.shape, shape, strict=False)
    for axis, (own, wanted) in enumerate(sizes):
        if own != wanted and None not in (own, wanted) and (own != 1 or axis == 0):
            return None
    while len(x.shape) < rank:
        x = ops.expand_dims(x, -1)
    return x


def present(
    y_pred: Tensor, sample_weight: Tensor = None, masks: Sequence[Tensor] = ()
) -> Tensor | None:
    """Which samples have a part in the loss, or None if nothing is said of any.

    The samples are on all axes of `y_pred` except the last. What doesn't fit there is
    left out here, and `reduced` refuses it.
    """
    shape = y_pred.shape[: max(1, len(y_pred.shape) - 1)]
    said = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    if sample_weight is not None:
        said.append(ops.convert_to_tensor(sample_weight) != 0)
    fitted = (on_first_axes(x, shape) for x in said)
    fitting = [x for x in fitted if x is not None]
    return functools.reduce(ops.logical_and, fitting) if fitting else None


def replaced(x: Tensor, present: Tensor | None) -> Tensor:
    """`x` with ones for the samples that are absent.

    A 1 has a finite logarithm, root and inverse, and is a class label. The gradient in
    what was replaced is exactly 0.
    """
    if present is None:
        return x
    fitted = on_first_axes(present, x.shape)
    return x if fitted is None else ops.where(fitted, x, ops.ones_like(x))


def known(y_true: Tensor, ignore: float | str) -> Tensor:
    """Which entries of the targets are not `ignore`."""
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    if keras.backend.is_float_dtype(dtype):
        if ignore == "nan":
            return ops.logical_not(ops.isnan(y_true))
        return y_true != ops.convert_to_tensor(ignore, dtype)
    if dtype == "bool":
        y_true, dtype = ops.cast(y_true, "int32"), "int32"
    bounds = np.iinfo(dtype)
    held = isinstance(ignore, int) and bounds.min <= ignore <= bounds.max
    if not held:  # no target of this dtype can be it
        return ops.ones_like(y_true, dtype="bool")
    return y_true != ops.convert_to_tensor(ignore, dtype)


def known_samples(known: Tensor, y_pred: Tensor, by_feature: bool) -> Tensor:
    """Which samples have a target, from which entries of their targets are known.

    Where the targets have an axis of features, one known feature is enough for a loss
    that is computed feature by feature, and all must be known for another.
    """
    rank = len(y_pred.shape)
    if len(known.shape) == rank + 1 and known.shape[-1] == 1:
        known = ops.squeeze(known, -1)
    if len(known.shape) == 1 or len(known.shape) < rank:
        return known
    return ops.any(known, axis=-1) if by_feature else ops.all(known, axis=-1)
