"""How much of the variance of its targets a reconstruction explains."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.losses.shapes import aligned
from keras_penalties.metrics.base import Metric
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class ExplainedVariance(Metric):
    """The share of the variance that is explained: `1 − Σ‖x − x̂‖² / Σ‖x − mean‖²`.

    `x` is `y_true`, `x̂` is `y_pred`, and the mean is that of all rows since the last
    reset, so that the result of an epoch is exact however it is cut into batches. It
    equals scikit-learn's `r2_score(multioutput="variance_weighted")` where each feature
    varies: scikit-learn leaves out the error of one that does not. scikit-learn's
    `explained_variance_score` first subtracts the mean of the residual `x − x̂`, so
    that it forgives a constant error; the two are equal where that mean is 0.

    The sums are taken around the mean of the first batch, so that a large mean beside a
    small variance costs no digits. Where the targets do not vary the result is 1 for an
    exact reconstruction and else 0, as in scikit-learn. Without a row it is 0.

    Args:
        name: For logs. Default: `"explained_variance"`.
        dtype: Of the result. Default `keras.config.floatx()`.

    Shapes: `y_true` and `y_pred` (batch, ..., features), the same number of features in
    each batch; weights (batch,) or (batch, ...). All axes except the last are rows:
    flatten images first.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> variance = kp.metrics.ExplainedVariance()
        >>> x = np.array([[0.0, 0.0], [2.0, 4.0]])
        >>> variance.update_state(x, np.array([[0.0, 1.0], [2.0, 4.0]]))
        >>> round(float(variance.result()), 6)
        0.9

    Raises:
        ValueError: if the shapes of `y_true` and `y_pred` differ by more than a last
            axis of 1, the weights do not fit, or the number of features changes.

    Source: Draper and Smith, "Applied Regression Analysis", 1998, the R² statistic.
    """

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._direction = "up"  # what `EarlyStopping(mode="auto")` reads
        self.count, self.residual = self.add_sum("count"), self.add_sum("residual")
        self.squares = self.add_sum("squares")
        self.sums: Any = None

    def _build(self, features: int) -> None:
        self.sums = self.add_sum("sums", (features,))
        # All replicas must take their sums around the same point, so this variable is
        # shared and not, as a metric's others are, one for each replica.
        self.center = keras.Variable(
            keras.initializers.Zeros(),
            shape=(features,),
            dtype=self.wide,
            trainable=False,
            aggregation="mean",
            name="center",
        )

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None
    ) -> None:
        """Add a batch of targets and their reconstructions."""
        mask = compat.keras_mask(y_pred)
        x, rebuilt = aligned(
            ops.convert_to_tensor(y_true, dtype=self.wide),
            ops.convert_to_tensor(y_pred, dtype=self.wide),
        )
        features = x.shape[-1]
        if self.sums is None:
            self._build(features)
        if self.sums.shape != (features,):
            expected = f"{self.sums.shape[0]} features, as in the first batch"
            checks.refuse("y_true", expected, tuple(x.shape))
        weights = self.row_weights(x[..., 0], sample_weight, mask)
        weights = ops.broadcast_to(weights, ops.shape(x)[:-1])
        w = ops.reshape(weights, (-1, 1))
        x, error = (ops.reshape(t, (-1, features)) for t in (x, x - rebuilt))
        # Not by a product alone: what is left out may be NaN.
        x, error = (ops.where(w != 0, t, ops.zeros_like(t)) for t in (x, error))
        self._add(x, error, w)

    def _add(self, x: Tensor, error: Tensor, w: Tensor) -> None:
        number = ops.sum(w)
        mean = ops.divide_no_nan(ops.sum(w * x, axis=0), number)
        started = self.count.value != 0
        self.center.assign(ops.where(started, self.center.value, mean))
        x = x - self.center.value
        self.count.assign_add(number)
        self.residual.assign_add(ops.sum(w * ops.square(error)))
        self.sums.assign_add(ops.sum(w * x, axis=0))
        self.squares.assign_add(ops.sum(w * ops.square(x)))

    def result(self) -> Tensor:
        """The share since the last reset."""
        if self.sums is None:
            return ops.zeros((), self.dtype)
        number, residual = self.count.value, self.residual.value
        around = ops.divide_no_nan(ops.sum(ops.square(self.sums.value)), number)
        total = self.squares.value - around
        varies = total > 0
        share = 1.0 - residual / ops.where(varies, total, ops.ones_like(total))
        exact = ops.cast(ops.logical_and(residual == 0, number > 0), self.wide)
        return ops.cast(ops.where(varies, share, exact), self.dtype)

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, ...]:
        """Targets with a large mean, and noisy reconstructions."""
        x = 3.0 + rng.normal(size=(batch, 3)) * [0.5, 1.0, 2.0]
        rebuilt = x + 0.3 * rng.normal(size=x.shape)
        return x.astype("float32"), rebuilt.astype("float32")
