"""Class weights for any loss, output and kind of label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, compat, expressions
from keras_penalties.losses.base import FeatureLoss, LossOptions
from keras_penalties.losses.hosting import hosted
from keras_penalties.losses.reduction import on_first_axes
from keras_penalties.losses.shapes import (
    agree,
    aligned,
    as_labels,
    one_hot,
    refuse_shapes,
)
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class ClassWeighted(FeatureLoss):
    """Another loss, each sample's value times its class' weight: `w_y·loss(y, ŷ)`.

    `fit(class_weight=...)` knows one output with one label per sample only. This is a
    loss like any other: give each output its own, and each pixel or time step is
    weighed by its own label. A soft target weighs `Σ_k y_k·w_k`. The default reduction
    divides by the number of samples, not by the sum of the weights. A label that the
    other loss leaves out by its own `ignore` or `ignore_class` stays left out.

    Args:
        loss: A `keras.losses.Loss`, a function of `(y_true, y_pred)`, or the name of
            either, that gives one value per sample. Keras' own `Huber(delta)`,
            `CosineSimilarity(axis)` and `SparseCategoricalCrossentropy(axis)` lose that
            argument when a model is saved, here too: register a function instead.
        weights: One number for each class, 0 or more: a list, or a dict from each class
            0..K−1 as for `fit`. With `multi_label`, `[negative, positive]`, or a list
            of such pairs, one for each label.
        multi_label: Whether `y_true` holds several labels that are independent of each
            other, each 0, 1 or between, so that the value of a sample is the mean of
            the weighed losses of its labels. Default False.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or a
    probability for each class (batch, ..., K) beside a `y_pred` of that shape, or with
    two weights the probability of class 1, (batch, ..., 1), beside a `y_pred` of that
    shape; in whichever of these the loss itself takes. With `multi_label`, `y_true` and
    `y_pred` (batch, ..., labels). The result is (batch, ...).

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> inner = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> loss = kp.losses.ClassWeighted(inner, {0: 1.0, 1: 10.0})
        >>> round(float(loss(np.array([0, 1]), np.zeros((2, 2)))), 4)
        3.8123

    Raises:
        ValueError: if `loss` has a reduction of its own, the weights are negative,
            leave out a class or are no pairs with `multi_label`, the shapes don't fit,
            or a row of `y_true` is no distribution over the classes. Inside a compiled
            function, where no value can be looked at, such a row gives NaN, as does a
            label beyond the weights.

    Source: King and Zeng, "Logistic Regression in Rare Events Data", 2001.
    """

    exact_targets = True

    def __init__(
        self,
        loss: Any,
        weights: Sequence[float] | Sequence[Sequence[float]] | Mapping[int, float],
        multi_label: bool = False,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.loss = _inner(loss)
        self.multi_label = checks.instance("multi_label", multi_label, bool)
        if multi_label and getattr(self.loss, "ignore", None) is not None:
            wanted = "one without `ignore`, which ClassWeighted takes for all labels"
            checks.refuse("loss", wanted, loss)
        self.weights: Any = _pairs(weights) if multi_label else _listed(weights)
        self._hosted = hosted(self.loss)

    @property
    def by_feature(self) -> bool:
        """Whether one unknown label leaves the others of its sample in the loss."""
        return self.multi_label

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The other loss' value per sample, weighed."""
        if self.multi_label:
            return super().call(y_true, y_pred)
        return self._weighed(y_true, y_pred, None)

    def _weighed(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor | None
    ) -> Tensor:
        values, known = self._hosted.unreduced(
            y_true, y_pred, mask=present, dtype=self.dtype
        )
        shares = self._classes(y_true, y_pred)
        weights = ops.convert_to_tensor(self.weights, y_pred.dtype)
        weight = ops.sum(shares * weights, axis=-1)
        if len(values.shape) != len(weight.shape):
            wanted = f"one with a value per sample, of shape {tuple(weight.shape)}"
            checks.refuse("loss", wanted, tuple(values.shape))
        if known is not None:  # what is left out may have no weight
            kept = on_first_axes(ops.cast(known, "bool"), weight.shape)
            weight = ops.where(kept, weight, ops.zeros_like(weight))
        return compat.carry_mask(values * weight, known)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Each label's weighed loss: to the other loss a label is a sample."""
        y_true, y_pred = aligned(y_true, y_pred)
        labels = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
        values, _ = self._hosted.unreduced(*labels, dtype=self.dtype)
        weights = ops.convert_to_tensor(self.weights, y_pred.dtype)
        if not agree(weights.shape[:-1], y_pred.shape[-1:][: len(weights.shape) - 1]):
            refuse_shapes(f"{len(self.weights)} labels", y_true.shape, y_pred.shape)
        share = _share(y_true, y_pred.dtype)
        return values * ((1.0 - share) * weights[..., 0] + share * weights[..., 1])

    def _values(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        known: Tensor | None,
        present: Tensor | None,
    ) -> Tensor:
        if not self.multi_label:
            self._check_rows(y_true, y_pred, present)
            return self._weighed(y_true, y_pred, present)
        return super()._values(y_true, y_pred, known, present)

    def _classes(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(..., K), the share of each class; NaN for what is no label."""
        classes = len(self.weights)
        if self._dense(y_true, y_pred):
            rows = ops.cast(y_true, y_pred.dtype)
            return ops.where(_distributions(rows), rows, float("nan"))
        labels = as_labels(y_true, y_pred)
        if classes == 2 and y_pred.shape[-1] == 1:
            share = _share(labels, y_pred.dtype)
            return ops.stack([1.0 - share, share], axis=-1)
        return one_hot(labels, classes, y_pred.dtype)

    def _dense(self, y_true: Tensor, y_pred: Tensor) -> bool:
        """Whether the targets are a probability for each class."""
        classes = len(self.weights)
        same_rank = len(y_true.shape) == len(y_pred.shape) and classes > 1
        return same_rank and y_true.shape[-1] == y_pred.shape[-1] == classes

    def _check_rows(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor | None
    ) -> None:
        if not self._dense(y_true, y_pred):
            return
        y_true = ops.cast(y_true, y_pred.dtype)
        proper = _distributions(y_true)[..., 0]
        if present is not None:
            proper = ops.logical_or(proper, ops.logical_not(present))
        try:
            proper = ops.convert_to_numpy(proper)
        except Exception:  # each backend has its own error for an unknown value
            return
        if not proper.all():
            row = ops.convert_to_numpy(y_true)[~proper][0]
            raise ValueError(
                "Invalid value for argument `y_true`. Expected rows of probabilities, "
                f"one for each of {len(self.weights)} classes, with the sum 1. "
                f"Received: a row with the sum {row.sum():g}, from {row.min():g} to "
                f"{row.max():g}. For labels that are independent of each other, use "
                "ClassWeighted(..., multi_label=True)."
            )

    @classmethod
    def examples(cls) -> list[Self]:
        """Around a loss of Keras' and of this package's, and for several labels."""
        crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        weights = [1.0, 0.5, 0.0, 2.0]
        return [
            cls(crossentropy, weights),
            cls("multiclass_hinge", weights[::-1]),
            cls("asymmetric_loss", [[1.0, 3.0], [0.5, 1.0], [0.0, 2.0]], True),
        ]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Integer labels and logits of four classes, or three labels, on or off."""
        if self.multi_label:
            return rng.integers(0, 2, (batch, 3)), rng.normal(size=(batch, 3))
        return rng.integers(0, 4, batch), rng.normal(size=(batch, 4))


def _inner(loss: Any) -> Any:
    found = expressions.get(loss, "loss", argument="loss")
    if getattr(found, "reduction", "sum_over_batch_size") != "sum_over_batch_size":
        checks.refuse(
            "loss",
            "one whose reduction is left at its default: give the reduction to "
            "ClassWeighted",
            loss,
        )
    return found


def _listed(weights: Any) -> list[float]:
    if isinstance(weights, Mapping):
        if sorted(weights) != list(range(len(weights))):
            checks.refuse("weights", "a weight for each class 0, 1, 2, …", weights)
        weights = [weights[label] for label in range(len(weights))]
    if any(isinstance(weight, Sequence | np.ndarray) for weight in weights):
        wanted = "numbers, or with `multi_label=True` pairs of numbers"
        checks.refuse("weights", wanted, weights)
    listed = [checks.non_negative("weights", weight) for weight in weights]
    return listed or checks.refuse("weights", "at least one weight", weights)


def _pairs(weights: Any) -> list[float] | list[list[float]]:
    """`[negative, positive]`, or such a pair for each label."""
    if isinstance(weights, Mapping):
        weights = _listed(weights)
    nested = all(isinstance(pair, Sequence | np.ndarray) for pair in weights)
    pairs = [_listed(pair) for pair in weights] if nested else [_listed(weights)]
    if any(len(pair) != 2 for pair in pairs):
        wanted = "[negative, positive], or such a pair for each label"
        checks.refuse("weights", wanted, weights)
    return pairs if nested else pairs[0]


def _share(labels: Tensor, dtype: str) -> Tensor:
    """The probability of class 1, NaN where it is none."""
    share = ops.cast(labels, dtype)
    proper = ops.logical_and(share >= 0, share <= 1)
    return ops.where(proper, share, float("nan"))


def _distributions(rows: Tensor) -> Tensor:
    """(..., 1), which rows can be a distribution."""
    close = ops.abs(ops.sum(rows, axis=-1, keepdims=True) - 1.0) < 0.01
    return ops.logical_and(close, ops.all(rows >= 0, axis=-1, keepdims=True))
