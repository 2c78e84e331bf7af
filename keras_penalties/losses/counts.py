"""Losses for counts and for positive amounts, of a predicted log mean."""

from __future__ import annotations

import math
from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import FeatureLoss, LossOptions
from keras_penalties.losses.shapes import aligned, unpacked
from keras_penalties.numerics import bounded, positive_part, stirling_error
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class TweedieDeviance(FeatureLoss):
    """The deviance of a Tweedie distribution with variance `μ^power`, of a log mean.

    `2·[y^(2−p)/((1−p)(2−p)) − y·μ^(1−p)/(1−p) + μ^(2−p)/(2−p)]`, μ = exp(y_pred).
    Power 1 is Poisson's deviance, `2·[y·log(y/μ) − y + μ]`, 2 is Gamma's,
    `2·[y/μ − log(y/μ) − 1]`, 3 the inverse Gaussian's, and those between 1 and 2 suit
    amounts that are often exactly 0, such as claims or rain. It is the full deviance,
    as in scikit-learn. Power 0 is the squared error, which Keras has.

    Args:
        power: The power p, in [1, 3]. Default 1.5.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, 0 or more, and above 0 for a power of 2 or more, and `y_pred`, log
    means, which are held within ±30, (batch, ..., features), or (batch,) on either
    side; the result is (batch, ...), a mean over the features. A target outside the
    domain gives NaN or infinity.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.TweedieDeviance(power=1)
        >>> float(loss(np.array([[0.0]]), np.array([[0.0]])))
        2.0

    Raises:
        ValueError: if `power` lies outside [1, 3], or the shapes differ by more than a
            last axis of 1.

    Source: Jørgensen, "Exponential Dispersion Models", 1987.
    """

    def __init__(self, power: float = 1.5, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.power = checks.number("power", power, 1.0, 3.0)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        y_true, y_pred = aligned(y_true, y_pred)
        log_mean = bounded(y_pred)
        a = 2.0 - self.power
        zero = y_true == 0
        positive = ops.where(zero, ops.ones_like(y_true), y_true) if a > 0 else y_true
        log_ratio = ops.log(positive) - log_mean
        # Where the ratio overflows, the value is infinite and the slope that at e^80.
        over = ops.stop_gradient(positive_part(log_ratio - 80.0))
        unit = self._unit(log_ratio - over)
        if a > 0:
            unit = ops.where(zero, 1.0 / a, unit)
        beyond = ops.where(over > 0, math.inf, ops.zeros_like(over))
        return 2.0 * ops.exp(a * log_mean) * unit + beyond

    def _unit(self, log_ratio: Tensor) -> Tensor:
        """Half the deviance for y > 0 over `μ^(2−p)`: a function of the ratio y/μ.

        Both forms are the formula; each divides by no number near 0 where it is used.
        """
        a, b = 2.0 - self.power, 1.0 - self.power
        ratio = ops.exp(log_ratio)
        if self.power < 1.5:
            return (ratio * _box_cox(log_ratio, b) - (ratio - 1.0)) / a
        return (_box_cox(log_ratio, a) - (ratio - 1.0)) / b

    @classmethod
    def examples(cls) -> list[Self]:
        """Poisson, compound Poisson, Gamma, inverse Gaussian."""
        return [cls(1), cls(1.3), cls(1.7), cls(2), cls(3)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Amounts, with zeros among them where they are allowed."""
        amounts = rng.gamma(2.0, size=(batch, 3))
        if self.power < 2.0:
            amounts[:, 0] = 0.0
        return amounts, rng.normal(size=(batch, 3))


def _box_cox(log_x: Tensor, power: float) -> Tensor:
    """`(x^power − 1)/power`, or its limit `log x`."""
    return ops.expm1(power * log_x) / power if abs(power) > 1e-30 else log_x


@register
class NegativeBinomial(FeatureLoss):
    """The negative log-likelihood of counts with mean μ and variance `μ + α·μ²` (NB2).

    With r = 1/α: `log Γ(r) + log Γ(y + 1) − log Γ(y + r) + r·log(1 + μ/r)
    + y·log(1 + r/μ)`. As α nears 0 it becomes Poisson's. With `zero_inflated` a count
    is 0 with the chance π, and drawn from the above otherwise.

    Args:
        zero_inflated: Whether `y_pred` also holds the logit of π. Default False.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, counts, (batch, ..., features), or (batch, ...) for one feature.
    `y_pred` (batch, ..., 2 * features): all `log μ`, then all `log α`, which are held
    within ±30; with `zero_inflated`, (batch, ..., 3 * features), the logits of π last.
    The result is (batch, ...), a mean over the features. A negative count gives NaN.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.NegativeBinomial()
        >>> round(float(loss(np.array([0.0]), np.array([[0.0, 0.0]]))), 4)
        0.6931

    Raises:
        ValueError: if `zero_inflated` is no bool, or `y_pred` doesn't hold that many
            parameters for each target.

    Source: Lawless, "Negative Binomial and Mixed Poisson Regression", 1987; Greene,
    "Accounting for Excess Zeros and Sample Selection in Poisson and Negative Binomial
    Regression Models", 1994.
    """

    def __init__(
        self, zero_inflated: bool = False, **kwargs: Unpack[LossOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.zero_inflated = checks.instance("zero_inflated", zero_inflated, bool)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        y_true, packed = unpacked(y_true, y_pred, 3 if self.zero_inflated else 2)
        log_mean, log_alpha = bounded(packed[..., 0, :]), bounded(packed[..., 1, :])
        zero = y_true == 0
        positive = ops.where(zero, ops.ones_like(y_true), y_true)
        at_zero = ops.exp(-log_alpha) * ops.softplus(log_mean + log_alpha)
        above = _negative_binomial(positive, log_mean, log_alpha)
        if self.zero_inflated:
            logit = packed[..., 2, :]
            not_inflated = ops.softplus(logit)
            at_zero = not_inflated - ops.logaddexp(logit, -at_zero)
            above = above + not_inflated
        return ops.where(zero, at_zero, above)

    @classmethod
    def examples(cls) -> list[Self]:
        """With and without extra zeros."""
        return [cls(), cls(zero_inflated=True)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Counts, with zeros among them."""
        counts = rng.poisson(3.0, size=(batch, 2)).astype("float64")
        counts[:, 0] = 0.0
        return counts, rng.normal(size=(batch, 6 if self.zero_inflated else 4))


def _negative_binomial(y: Tensor, log_mean: Tensor, log_alpha: Tensor) -> Tensor:
    """The negative log-likelihood of y > 0, after Loader's saddle-point expansion.

    The difference of the log-gammas of large counts loses most digits. Here they are
    subtracted symbolically.
    """
    mean, size = ops.exp(log_mean), ops.exp(-log_alpha)
    total, expected, excess = y + size, mean + size, y - mean
    log_total = ops.log(total)
    gap = ops.log(expected) - log_total
    odds = ops.exp(-log_alpha - log_mean)  # size / mean, whose slope is no larger
    share = _log1p((excess / total) * odds, 1.0, ops.log(y) - log_mean + gap)
    deviance = y * share - size * _log1p(excess, expected, -gap)
    errors = stirling_error(y) + stirling_error(size) - stirling_error(total)
    return (
        deviance + errors + 0.5 * (ops.log(2.0 * math.pi * y) + log_total + log_alpha)
    )


def _log1p(x: Tensor, over: Tensor | float, far: Tensor) -> Tensor:
    """`log(1 + x/over)`, by `far` where the ratio is not small: it may overflow."""
    near = ops.abs(x) < 0.5 * over
    return ops.where(near, ops.log1p(ops.where(near, x, ops.zeros_like(x)) / over), far)
