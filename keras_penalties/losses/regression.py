"""Regression losses with a shape: quantiles, expectiles, robustness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import FeatureLoss, LossOptions
from keras_penalties.losses.likelihood import log1p_square
from keras_penalties.losses.shapes import aligned, unpacked
from keras_penalties.numerics import positive_part
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Pinball(FeatureLoss):
    """The quantile loss: `max(q·r, (q − 1)·r)` for the residual `r = y_true − y_pred`.

    The constant that minimises it is the q-quantile of `y_true`; half the absolute
    error is the case q = 0.5. With `smoothing` d it is the Moreau envelope, which is
    smooth: `r²/2d` for r in [(q − 1)·d, q·d], and straight lines outside, so it lies
    at most `max(q, 1 − q)²·d/2` lower.

    Args:
        quantiles: One level in (0, 1), or a list of such. Default 0.5.
        smoothing: The width d, 0 or more. Default 0.0, the exact pinball.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., levels * features): all features at the first level, then all at the
    second, and so on. The result is (batch, ...): a mean over levels and features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.Pinball([0.1, 0.9])
        >>> round(float(loss(np.array([3.0]), np.array([[1.0, 5.0]]))), 4)
        0.2

    Raises:
        ValueError: if a level lies outside (0, 1), none is given, `smoothing` is
            negative, or the shapes don't fit.

    Source: Koenker and Bassett, "Regression Quantiles", 1978; smoothed as in Fernandes,
    Guerre and Horta, "Smoothing Quantile Regressions", 2021, by the uniform kernel.
    """

    def __init__(
        self,
        quantiles: float | Sequence[float] = 0.5,
        smoothing: float = 0.0,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(quantiles, list | tuple | np.ndarray):
            self.quantiles: Any = [checks.fraction("quantiles", q) for q in quantiles]
        else:
            self.quantiles = checks.fraction("quantiles", quantiles)
        if self.quantiles == []:
            checks.refuse("quantiles", "at least one level", quantiles)
        self.smoothing = checks.non_negative("smoothing", smoothing)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The mean over levels, one value for each feature."""
        levels = np.ravel(self.quantiles)
        y_true, y_pred = unpacked(y_true, y_pred, len(levels))
        residual = ops.expand_dims(y_true, -2) - y_pred
        q = ops.convert_to_tensor(levels[:, None], residual.dtype)
        if self.smoothing:
            # The slope of the envelope is the residual over d, within [q - 1, q].
            slope = ops.clip(residual / self.smoothing, q - 1.0, q)
            losses = slope * residual - 0.5 * self.smoothing * ops.square(slope)
        else:
            above, below = positive_part(residual), positive_part(-residual)
            losses = q * above + (1.0 - q) * below
        return ops.mean(losses, axis=-2)

    @classmethod
    def examples(cls) -> list[Self]:
        """One level, several, and a smooth one."""
        return [cls(), cls([0.1, 0.5, 0.9]), cls(0.8, smoothing=0.5)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two features, each with a prediction at each level."""
        levels = np.size(self.quantiles)
        return rng.normal(size=(batch, 2)), rng.normal(size=(batch, 2 * levels))


@register
class Expectile(FeatureLoss):
    """Squares weighed by their side: `|level − 1(r < 0)|·r²`, `r = y_true − y_pred`.

    The constant that minimises it is the expectile of `y_true`: an expectile minimises
    weighted squared errors, as a quantile minimises weighted absolute errors.
    `level=0.5` is half of Keras' `MeanSquaredError`.

    Args:
        level: The weight of a residual above 0, in (0, 1); below 0 it is the rest to
            1. Default 0.5.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` and `y_pred` (batch, ..., features), or (batch,) on either side;
    the result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.Expectile(0.9)
        >>> float(loss(np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])))
        2.0

    Raises:
        ValueError: if `level` lies outside (0, 1), or the shapes differ by more than a
            last axis of 1.

    Source: Newey and Powell, "Asymmetric Least Squares Estimation and Testing", 1987.
    """

    def __init__(self, level: float = 0.5, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.level = checks.fraction("level", level)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        y_true, y_pred = aligned(y_true, y_pred)
        residual = y_true - y_pred
        above, below = positive_part(residual), positive_part(-residual)
        squares = self.level * ops.square(above) + (1.0 - self.level) * ops.square(
            below
        )
        return squares

    @classmethod
    def examples(cls) -> list[Self]:
        """The middle and one side."""
        return [cls(), cls(0.9)]


@register
class GeneralRobust(FeatureLoss):
    """Barron's family: `|α − 2|/α · [((r/c)²/|α − 2| + 1)^(α/2) − 1]`.

    `r = y_true − y_pred`. One parameter leads from squares to losses that forget
    outliers: α = 2 is `½(r/c)²`, 1 pseudo-Huber (Charbonnier), 0 Cauchy,
    `log(½(r/c)² + 1)`, −2 Geman-McClure, and −inf Welsch, `1 − exp(−½(r/c)²)`. All are
    `½(r/c)²` near 0. Keras' `MeanSquaredError` is `2c²` times the case α = 2.

    Args:
        alpha: The shape α, at most 2, `-inf` included. Default 1.0.
        scale: The residual c at which robustness begins, above 0. Default 1.0.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` and `y_pred` (batch, ..., features), or (batch,) on either side;
    the result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.GeneralRobust(alpha=-2.0)
        >>> float(loss(np.array([[2.0]]), np.array([[0.0]])))
        1.0

    Raises:
        ValueError: if `alpha` is above 2, `scale` isn't above 0, or the shapes differ
            by more than a last axis of 1.

    Source: Barron, "A General and Adaptive Robust Loss Function", 2019.
    """

    def __init__(
        self, alpha: float = 1.0, scale: float = 1.0, **kwargs: Unpack[LossOptions]
    ) -> None:
        super().__init__(**kwargs)
        welsch = isinstance(alpha, float) and alpha == -math.inf
        self.alpha = alpha if welsch else checks.number("alpha", alpha, high=2.0)
        self.scale = checks.positive("scale", scale)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        y_true, y_pred = aligned(y_true, y_pred)
        ratio = (y_true - y_pred) / self.scale
        alpha, gap = self.alpha, 2.0 - self.alpha
        if gap < 1e-15:
            return 0.5 * ops.square(ratio)
        if math.isinf(alpha):
            # Beyond 40 the value is 1, with slope 0, and the square may be infinite.
            near = ops.abs(ratio) < 40.0
            ratio = ops.where(near, ratio, ops.zeros_like(ratio))
            value = -ops.expm1(-0.5 * ops.square(ratio))
            return ops.where(near, value, ops.ones_like(value))
        half_log_gap = 0.5 * math.log(gap) * ops.ones_like(ratio)
        logs = log1p_square(ratio, half_log_gap)
        if abs(alpha) < 1e-30:  # no float32 is that small, and the limit is reached
            return logs
        # As α nears 0, expm1 and log1p keep the digits that the power would lose.
        return gap / alpha * ops.expm1(0.5 * alpha * logs)

    @classmethod
    def examples(cls) -> list[Self]:
        """The named members of the family, and a wider scale."""
        named = [cls(alpha, 0.7) for alpha in (2.0, 1.0, 0.0, -2.0, -math.inf)]
        return [*named, cls(scale=2.0)]
