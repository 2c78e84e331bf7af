"""Class weights for any loss, output and kind of label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, expressions
from keras_penalties.losses.base import Loss
from keras_penalties.losses.shapes import as_labels, one_hot
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class ClassWeighted(Loss):
    """Another loss, each sample's value times its class' weight: `w_y·loss(y, ŷ)`.

    `fit(class_weight=...)` knows one output with one label per sample only. This is a
    loss like any other: give each output its own, and each pixel or time step is
    weighed by its own label. A soft target weighs `Σ_k y_k·w_k`.

    Args:
        loss: A `keras.losses.Loss`, a function of `(y_true, y_pred)`, or the name of
            either, that gives one value per sample. Keras' own `Huber(delta)`,
            `CosineSimilarity(axis)` and `SparseCategoricalCrossentropy(axis)` lose that
            argument when a model is saved, here too: register a function instead.
        weights: One number for each class, 0 or more: a list, or a dict from each class
            0..K−1 as for `fit`.
        name: For logs. Default `"class_weighted"`.
        reduction: As in `keras.losses.Loss`. Default `"sum_over_batch_size"`, which
            divides by the number of samples, not by the sum of the weights.
        dtype: Of the result. Default `keras.config.floatx()`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or a
    probability for each class (batch, ..., K) beside a `y_pred` of that shape; in
    whichever of these the loss itself takes. The result is (batch, ...).

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> inner = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> loss = kp.losses.ClassWeighted(inner, {0: 1.0, 1: 10.0})
        >>> round(float(loss(np.array([0, 1]), np.zeros((2, 2)))), 4)
        3.8123

    Raises:
        ValueError: if `loss` has a reduction of its own, the weights are negative or
            leave out a class, or the shapes don't fit. A label beyond the weights
            gives NaN.

    Source: King and Zeng, "Logistic Regression in Rare Events Data", 2001.
    """

    exact_targets = True

    def __init__(
        self,
        loss: Any,
        weights: Sequence[float] | Mapping[int, float],
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.loss = _inner(loss)
        self.weights = _listed(weights)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The other loss' value per sample, weighed."""
        values = self._values(y_true, y_pred)
        weights = ops.convert_to_tensor(self.weights, y_pred.dtype)
        return values * ops.sum(self._classes(y_true, y_pred) * weights, axis=-1)

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        dtype = keras.backend.standardize_dtype(y_pred.dtype)
        if isinstance(self.loss, Loss):
            return self.loss.call(self.loss.as_target(y_true, dtype), y_pred)
        function = getattr(self.loss, "call", self.loss)
        return function(ops.cast(y_true, dtype), y_pred)

    def _classes(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(..., K), the share of each class."""
        classes = len(self.weights)
        dense = len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == classes
        if dense and classes > 1 and y_pred.shape[-1] == classes:
            return ops.cast(y_true, y_pred.dtype)
        return one_hot(as_labels(y_true, y_pred), classes, y_pred.dtype)

    @classmethod
    def examples(cls) -> list[Self]:
        """Around a loss of Keras' and one of this package's."""
        crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        weights = [1.0, 0.5, 0.0, 2.0]
        return [cls(crossentropy, weights), cls("multiclass_hinge", weights[::-1])]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Integer labels, and logits of four classes."""
        return rng.integers(0, 4, batch), rng.normal(size=(batch, 4))


def _inner(loss: Any) -> Any:
    found = expressions.get(loss, "loss")
    if not callable(found):
        checks.refuse("loss", "a loss, or its name", loss)
    if getattr(found, "reduction", "sum_over_batch_size") != "sum_over_batch_size":
        checks.refuse(
            "loss",
            "one whose reduction is left at its default: give the reduction to "
            "ClassWeighted",
            loss,
        )
    return found


def _listed(weights: Sequence[float] | Mapping[int, float]) -> list[float]:
    if isinstance(weights, Mapping):
        if sorted(weights) != list(range(len(weights))):
            checks.refuse("weights", "a weight for each class 0, 1, 2, …", weights)
        weights = [weights[label] for label in range(len(weights))]
    listed = [checks.non_negative("weights", weight) for weight in weights]
    return listed or checks.refuse("weights", "at least one weight", weights)
