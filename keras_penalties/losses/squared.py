"""Squared errors."""

from __future__ import annotations

from keras import ops

from keras_penalties.losses.base import FeatureLoss
from keras_penalties.losses.shapes import aligned
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class HalfSumSquaredError(FeatureLoss):
    """Half the sum of squared errors over the features: `½·Σ(y_true − y_pred)²`.

    Its gradient is the plain residual. Keras' `MeanSquaredError` is twice this divided
    by the number of features. `reduction="sum"` is the textbook's sum over all samples.

    It takes the options of `Loss`: `name`, `reduction`, `dtype` and `ignore`.

    Shapes: `y_true` and `y_pred` (batch, ..., features), or (batch,) on either side;
    the result is (batch, ...) before the reduction.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.HalfSumSquaredError()
        >>> float(loss(np.zeros((2, 2)), np.array([[1.0, 1.0], [2.0, 0.0]])))
        1.5

    Raises:
        ValueError: if the shapes differ by more than a last axis of 1.

    Source: Bishop, "Pattern Recognition and Machine Learning", 2006, eq. 5.14.
    """

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Half the square of each residual."""
        y_true, y_pred = aligned(y_true, y_pred)
        return 0.5 * ops.square(y_true - y_pred)

    def over_features(self, values: Tensor, known: Tensor | None = None) -> Tensor:
        """The sum over the features that are known."""
        if known is not None:
            values = ops.where(known, values, ops.zeros_like(values))
        return ops.sum(values, axis=-1)
