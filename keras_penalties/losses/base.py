"""What a loss of this package adds to `keras.losses.Loss`."""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypedDict

import keras
import numpy as np
from keras import ops

from keras_penalties import config
from keras_penalties.numerics import bounded
from keras_penalties.registry import snake_case
from keras_penalties.typing import Tensor


class LossOptions(TypedDict, total=False):
    """The arguments that every loss passes on to `Loss`, which documents them."""

    name: str | None
    reduction: str | None
    dtype: Any


class Loss(keras.losses.Loss):
    """A Keras loss whose whole state is its arguments, so that it reloads as it was.

    A subclass writes `call`, which returns one value per sample, and stores each
    argument under its own name. Half floats are widened before `call` and until the
    samples are reduced.

    Args:
        name: For logs. Default: the string name of the class.
        reduction: As in `keras.losses.Loss`. Default `"sum_over_batch_size"`.
        dtype: Of the result. Default `keras.config.floatx()`. The computation is in
            float64 if it is float64, else in float32; what float16 can't hold becomes
            its largest number, with its own gradient. Of float16 predictions a gradient
            above 65504 is infinite, which loss scaling looks for.
    """

    exact_targets: ClassVar[bool] = False
    """Whether integer targets reach `call` as integers: Keras makes floats of them,
    and float32 can't tell 16777217 from 16777216."""

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        name = name or snake_case(type(self).__name__)
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> Tensor:
        """The reduced loss, as in `keras.losses.Loss`."""
        result = _InFullPrecision(self, y_true)(0.0, y_pred, sample_weight)
        if self.dtype == "float16":
            result = bounded(result, 65504.0)
        return ops.cast(result, self.dtype)

    def as_target(self, y_true: Tensor, dtype: str) -> Tensor:
        """Targets as `call` wants them: in `dtype`, or still integers."""
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


class _InFullPrecision(keras.losses.Loss):
    """One call of a loss: its targets as they came, and no half floats inside.

    Keras casts targets and predictions to the dtype of the loss, and sums in it.
    """

    def __init__(self, loss: Loss, y_true: Tensor) -> None:
        dtype = "float64" if loss.dtype == "float64" else "float32"
        super().__init__(loss.name, loss.reduction, dtype)
        self._loss, self._y_true = loss, y_true

    def call(self, _: Tensor, y_pred: Tensor) -> Tensor:
        y_true = keras.tree.map_structure(
            lambda y: self._loss.as_target(y, self.dtype), self._y_true
        )
        return self._loss.call(y_true, y_pred)
