"""How sparse a code is, and how many of its units are dead."""

from __future__ import annotations

from typing import Any, Self

from keras import ops

from keras_penalties import checks
from keras_penalties.metrics.base import CodeMetric
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class ActiveUnits(CodeMetric):
    """The mean number of active units in a row: `mean over rows of #{|code| > t}`.

    The literature calls it the code's L0.

    With `sample_weight` it is the weighted mean over the rows. Without a row it is 0.

    Args:
        threshold: t, 0 or more. A unit is active where its size is above t. Default
            0.0, for codes with exact zeros; a sigmoid's code needs more.
        **kwargs: `name` and `dtype`, as `Metric` has them.

    Shapes: the code (batch, ..., units); weights (batch,) or (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> active = kp.metrics.ActiveUnits()
        >>> active.update_state(np.array([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]]))
        >>> float(active.result())
        1.5

    Raises:
        ValueError: if `threshold` is negative, or the code or the weights have another
            shape.

    Source: Gao et al., "Scaling and Evaluating Sparse Autoencoders", 2024.
    """

    def __init__(self, threshold: float = 0.0, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)
        self.total, self.count = self.add_sum("total"), self.add_sum("count")

    def add_rows(self, active: Tensor, weights: Tensor) -> None:
        """Add the number of active units of each row."""
        number = ops.sum(ops.cast(active, self.wide), axis=-1)
        # Not by a product alone: a weight that is left out may be NaN.
        weighed = ops.where(weights != 0, number * weights, ops.zeros_like(weights))
        self.total.assign_add(ops.sum(weighed))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        """The mean since the last reset."""
        mean = ops.divide_no_nan(self.total.value, self.count.value)
        return ops.cast(mean, self.dtype)

    @classmethod
    def examples(cls) -> list[Self]:
        """Exact zeros, and a threshold."""
        return [cls(), cls(threshold=0.3)]


@register
class DeadShare(CodeMetric):
    """The share of units that were active in no row: `#{units never > t} / units`.

    It speaks of the rows since the last reset, which Keras does before each epoch and
    each evaluation: a unit that is active only rarely needs many rows to show that it
    is alive. Before any row it is 1. Of a row's weight only this matters: rows of
    weight 0 are left out.

    Args:
        threshold: t, 0 or more. A unit is active where its size is above t. Default
            0.0, for codes with exact zeros; a sigmoid's code needs more.
        **kwargs: `name` and `dtype`, as `Metric` has them.

    Shapes: the code (batch, ..., units), the same number of units in each batch;
    weights (batch,) or (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> dead = kp.metrics.DeadShare()
        >>> dead.update_state(np.array([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]))
        >>> float(dead.result())
        0.5

    Raises:
        ValueError: if `threshold` is negative, the code or the weights have another
            shape, or the number of units changes.

    Source: Bricken et al., "Towards Monosemanticity", 2023.
    """

    def __init__(self, threshold: float = 0.0, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)
        self._direction = "down"  # what `EarlyStopping(mode="auto")` reads
        self.fired: Any = None

    def add_rows(self, active: Tensor, weights: Tensor) -> None:
        """Remember the units that are active in a row with a weight."""
        units = active.shape[-1]
        if self.fired is None:
            self.fired = self.add_sum("fired", (units,))
        if self.fired.shape != (units,):
            expected = f"{self.fired.shape[0]} units, as in the first batch"
            checks.refuse("code", expected, tuple(active.shape))
        counted = ops.logical_and(active, ops.expand_dims(weights != 0, -1))
        rows = tuple(range(len(active.shape) - 1))
        now = ops.cast(ops.any(counted, axis=rows), self.wide)
        self.fired.assign(ops.maximum(self.fired.value, now))

    def result(self) -> Tensor:
        """The share since the last reset."""
        if self.fired is None:
            return ops.ones((), self.dtype)
        return ops.mean(ops.cast(self.fired.value == 0, self.dtype))

    @classmethod
    def examples(cls) -> list[Self]:
        """Exact zeros, and a threshold."""
        return [cls(), cls(threshold=0.3)]
