"""What a loss of this package adds to `keras.losses.Loss`."""

from __future__ import annotations

import math
import numbers
from typing import Any, ClassVar, Self, TypedDict

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, compat, config
from keras_penalties.losses.reduction import (
    known,
    known_samples,
    on_first_axes,
    present,
    reduced,
    replaced,
)
from keras_penalties.numerics import bounded
from keras_penalties.registry import snake_case
from keras_penalties.typing import Tensor


class LossOptions(TypedDict, total=False):
    """The arguments that every loss passes on to `Loss`, which documents them."""

    name: str | None
    reduction: str | None
    dtype: Any
    ignore: float | str | None


class Loss(keras.losses.Loss):
    """A Keras loss whose whole state is its arguments, so that it reloads as it was.

    A subclass writes `call`, which returns one value per sample, and stores each
    argument under its own name. Half floats are widened before `call` and until the
    samples are reduced.

    Predictions and targets beyond ±1e30 count as ±1e30, with the slopes there. A value
    or a slope that float32 can't hold is infinite, and never NaN.

    A sample weight or a mask belongs to samples: where the values have the shape
    (batch, time), it has the shape (batch,), (batch, 1), (batch, time) or
    (batch, time, 1). A sample that a mask leaves out, whose target is unknown, or whose
    weight is 0 is absent: it has no part in the value nor in a gradient, also where it
    holds a NaN. The means leave out of their count what is masked or unknown, and count
    a weight of 0, as Keras does.

    Args:
        name: For logs. Default: the string name of the class.
        reduction: As in `keras.losses.Loss`. Default `"sum_over_batch_size"`.
        dtype: Of the result. Default `keras.config.floatx()`. The computation is in
            float64 if it is float64, else in float32; a value that float16 can't hold
            becomes the largest float16 number; the gradient is not changed. Of float16
            predictions a gradient above 65504 is infinite, which loss scaling looks
            for.
        ignore: What stands in `y_true` for an unknown target: a label such as -1 or
            255, another number, or NaN, as `float("nan")` or `"nan"`. A loss that is a
            mean over features leaves an unknown feature out of that mean, a sum out of
            that sum. Any other loss leaves out a sample with an unknown entry. A batch
            without a known target costs 0. Default None: every target is known.

    Raises:
        ValueError: if `reduction` or `ignore` is none of these, or a weight or a mask
            has another shape.
    """

    exact_targets: ClassVar[bool] = False
    """Whether integer targets reach `call` as integers: Keras makes floats of them,
    and float32 can't tell 16777217 from 16777216."""

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
        ignore: float | str | None = None,
    ) -> None:
        name = name or snake_case(type(self).__name__)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ignore = checked_ignore(ignore)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> Tensor:
        """The reduced loss, as in `keras.losses.Loss`."""
        mask = compat.keras_mask(y_pred)
        values, known = self.unreduced(y_true, y_pred, sample_weight, mask)
        result = reduced(values, self.reduction, sample_weight, [mask, known])
        if self.dtype == "float16":
            result = bounded(result, 65504.0)
        return ops.cast(result, self.dtype)

    def unreduced(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor = None,
        mask: Tensor = None,
        dtype: str | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One value per sample, in full precision, and which samples are known.

        The values are not yet weighed. Those of absent samples mean nothing: their
        targets and predictions were replaced. A host may ask for its own `dtype`.
        """
        if 0 in keras.tree.flatten(y_pred)[0].shape[:1]:
            y_true, y_pred = keras.tree.map_structure(_one_row, (y_true, y_pred))
            return self.unreduced(y_true, y_pred, dtype=dtype)[0][:0], None
        dtype = "float64" if (dtype or self.dtype) == "float64" else "float32"
        y_pred = keras.tree.map_structure(
            lambda y: ops.convert_to_tensor(y, dtype), y_pred
        )
        entries = samples = None
        if self.ignore is not None:
            y_true = ops.convert_to_tensor(y_true)
            entries = self._known(y_true, y_pred, self.ignore)
            samples = known_samples(entries, y_pred, self.by_feature)
            y_true = replaced(y_true, entries)
        y_true = keras.tree.map_structure(lambda y: self.as_target(y, dtype), y_true)
        among = present(keras.tree.flatten(y_pred)[0], sample_weight, [mask, samples])
        y_true, y_pred = keras.tree.map_structure(
            lambda x: replaced(x, among), (y_true, y_pred)
        )
        y_true, y_pred = keras.tree.map_structure(_held, (y_true, y_pred))
        values = self._values(y_true, y_pred, entries, among)
        own = compat.keras_mask(values)  # as Keras' losses with an `ignore_class` do
        if own is not None and samples is not None:
            own = ops.logical_and(ops.cast(own, "bool"), samples)
        return values, samples if own is None else own

    def _known(self, y_true: Tensor, y_pred: Tensor, ignore: float | str) -> Tensor:
        """Which entries of the targets are known."""
        return known(y_true, ignore)

    def _values(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        known: Tensor | None,
        present: Tensor | None,
    ) -> Tensor:
        """One value per sample, where some entries of the targets may be unknown."""
        return self.call(y_true, y_pred)

    @property
    def by_feature(self) -> bool:
        """Whether one unknown feature leaves the others of its sample in the loss."""
        return False

    def as_target(self, y_true: Tensor, dtype: str) -> Tensor:
        """The targets in the dtype that `call` needs: `dtype`, or integers."""
        came = keras.backend.standardize_dtype(ops.convert_to_tensor(y_true).dtype)
        # Smaller integers are exact in float32.
        exact = self.exact_targets and came in ("int32", "int64", "uint32", "uint64")
        return ops.convert_to_tensor(y_true, dtype=None if exact else dtype)

    def get_config(self) -> dict[str, Any]:
        """Every argument, `dtype` included, which Keras leaves out."""
        return config.to_config(self)

    @classmethod
    def from_config(cls, config_: dict[str, Any]) -> Self:
        """The loss that `get_config` described."""
        loss: Self = config.from_config(cls, config_)
        return loss

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws, the docs and the listing run over."""
        return [cls()]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """`y_true` and `y_pred` in this loss' shapes and domain, for the laws."""
        shape = (batch, 3)
        return rng.normal(size=shape), rng.normal(size=shape)


class FeatureLoss(Loss):
    """A loss that is computed feature by feature: a sample's value is their mean.

    A subclass writes `features` in place of `call`. The features lie on the last axis
    of the targets.
    """

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature of each sample, (batch, ..., features)."""
        raise NotImplementedError

    def over_features(self, values: Tensor, known: Tensor | None = None) -> Tensor:
        """The mean over the features that are known, 0 where none is."""
        if known is None:
            return ops.mean(values, axis=-1)
        count = ops.sum(ops.cast(known, values.dtype), axis=-1)
        total = ops.sum(ops.where(known, values, ops.zeros_like(values)), axis=-1)
        return total / ops.maximum(count, ops.ones_like(count))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The features' values reduced, one value per sample."""
        return self.over_features(self.features(y_true, y_pred))

    @property
    def by_feature(self) -> bool:
        """True."""
        return True

    def _values(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        known: Tensor | None,
        present: Tensor | None,
    ) -> Tensor:
        if known is None:
            return self.call(y_true, y_pred)
        values = self.features(y_true, y_pred)
        return self.over_features(values, on_first_axes(known, values.shape))


class BatchLoss(Loss):
    """A statistic of the batch, in which a sample's value depends on the others.

    Its `call` is told which samples are present, so that no other sample has a part.
    """

    def call(self, y_true: Tensor, y_pred: Tensor, present: Tensor = None) -> Tensor:
        """One value per sample. `present` is (batch,), or None where all are."""
        raise NotImplementedError

    def _values(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        known: Tensor | None,
        present: Tensor | None,
    ) -> Tensor:
        return self.call(y_true, y_pred, present)


def _one_row(x: Tensor) -> Tensor:
    """An empty batch with a row: not every backend has a maximum of no entries."""
    x = ops.convert_to_tensor(x)
    row = ops.full((1, *x.shape[1:]), 1.0 / max([1, *x.shape[1:][-1:]]))
    return ops.concatenate([x, ops.cast(row, x.dtype)])


def _held(x: Tensor) -> Tensor:
    """Numbers within ±1e30, so that neither differences nor sums of them overflow."""
    floating = "float" in keras.backend.standardize_dtype(x.dtype)
    return bounded(x, 1e30) if floating else x


def checked_ignore(value: Any) -> float | str | None:
    """A number, or `"nan"`, which a config can hold where JSON has no NaN."""
    if value is None or value == "nan":
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if math.isnan(value):
            return "nan"
        if math.isfinite(value):
            return int(value) if isinstance(value, numbers.Integral) else float(value)
    return checks.refuse("ignore", "a number, 'nan' or None", value)
