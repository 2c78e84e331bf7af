"""What a metric of this package adds to `keras.metrics.Metric`."""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, compat, config
from keras_penalties.losses.reduction import on_first_axes
from keras_penalties.registry import snake_case
from keras_penalties.typing import Tensor


class Metric(keras.metrics.Metric):
    """A Keras metric of rows, whose config comes from its arguments.

    The rows are on all axes except the last. A row that a mask leaves out, or whose
    weight is 0, has no part in the result, also where the row holds a NaN. The sums are
    kept in float64 if `dtype` is float64, else in float32, and add up over the replicas
    of a `tf.distribute` strategy.

    Args:
        name: For logs. Default: the string name of the class.
        dtype: Of the result. Default `keras.config.floatx()`.

    Raises:
        ValueError: if a weight does not fit the rows.
    """

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name or snake_case(type(self).__name__), dtype=dtype)

    @property
    def wide(self) -> str:
        """The dtype of the sums."""
        return "float64" if self.dtype == "float64" else "float32"

    def add_sum(self, name: str, shape: tuple[int, ...] = ()) -> Any:
        """A variable that starts from 0 and adds up over replicas."""
        return self.add_variable(shape, "zeros", dtype=self.wide, name=name)

    def row_weights(self, rows: Tensor, sample_weight: Any, mask: Any) -> Tensor:
        """The weight of each row, 0 for a row that the mask leaves out.

        Args:
            rows: A tensor with one entry for each row.
            sample_weight: One weight for each row or each sample, one for all, or None.
            mask: True for the rows that count, or None.
        """
        weights = ops.ones_like(rows, dtype=self.wide)
        if sample_weight is not None:
            given = ops.convert_to_tensor(sample_weight, dtype=self.wide)
            weights *= self._on_rows("sample_weight", given, rows)
        if mask is not None:
            there = self._on_rows("mask", ops.cast(mask, "bool"), rows)
            weights = ops.where(there, weights, ops.zeros_like(weights))
        return weights

    def _on_rows(self, name: str, x: Tensor, rows: Tensor) -> Tensor:
        fitted = on_first_axes(x, rows.shape)
        if fitted is None:
            shape = tuple(rows.shape)
            expected = f"one entry for each row, which have the shape {shape}"
            checks.refuse(name, f"{expected}, or for each sample", tuple(x.shape))
        return fitted

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return config.to_config(self)

    @classmethod
    def from_config(cls, config_: dict[str, Any]) -> Self:
        """The metric that `get_config` described."""
        rest = {key: value for key, value in config_.items() if key != "name"}
        metric: Self = config.from_config(cls, rest)
        # The name may be this class's own key, of which Keras would make the class.
        metric.name = config_.get("name", metric.name)
        return metric

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws, the docs and the listing run over."""
        return [cls()]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, ...]:
        """What `update_state` takes, without weights, for the laws."""
        raise NotImplementedError


class CodeMetric(Metric):
    """A metric of a code: which of its units are active in which rows.

    A unit is active in a row where the size of its activation is above `threshold`. A
    code of ReLU, TopK or JumpReLU units has exact zeros. A sigmoid has none, so that
    its code needs a threshold.

    Args:
        threshold: 0 or more. Default 0.0.
        **kwargs: `name` and `dtype`, as `Metric` has them.

    Raises:
        ValueError: if `threshold` is negative, or a code has no axis of units.
    """

    def __init__(self, threshold: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = checks.non_negative("threshold", threshold)

    def update_state(self, *code: Tensor, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            *code: The code alone, (batch, ..., units). For a model that has the code
                as an output, `compile` hands over the targets and the code; the targets
                are not read.
            sample_weight: A weight for each row or each sample. Default None: 1.
        """
        if len(code) not in (1, 2):
            checks.refuse("code", "a code, or targets and a code", code)
        mask = compat.keras_mask(code[-1])
        found = ops.convert_to_tensor(code[-1])
        if len(found.shape) < 2 or found.shape[-1] is None:
            checks.refuse("code", "the shape (batch, ..., units)", tuple(found.shape))
        size = ops.absolute(ops.cast(found, self.wide))
        weights = self.row_weights(size[..., 0], sample_weight, mask)
        self.add_rows(size > self.threshold, weights)

    def add_rows(self, active: Tensor, weights: Tensor) -> None:
        """Add rows: which units are active in each, and the weight of each."""
        raise NotImplementedError

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, ...]:
        """A code with a unit that is never active, and a unit with small entries."""
        code = np.maximum(rng.normal(size=(batch, 6)), 0.0)
        code[:, 0] = 0.0
        code[:, 1] *= 0.1
        return (code.astype("float32"),)
