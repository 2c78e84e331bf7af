"""Negative log-likelihoods of continuous targets, whose spread is predicted too."""

from __future__ import annotations

import math
from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import FeatureLoss, LossOptions
from keras_penalties.losses.shapes import unpacked
from keras_penalties.numerics import absolute, bounded, stirling_error
from keras_penalties.registry import register
from keras_penalties.typing import Tensor

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def standardized(y_true: Tensor, packed: Tensor) -> tuple[Tensor, Tensor]:
    """`(y − location)/scale` and the log of the scale, from packed parameters."""
    location, log_scale = packed[..., 0, :], bounded(packed[..., 1, :])
    return (y_true - location) * ops.exp(-log_scale), log_scale


class _LocationScale(FeatureLoss):
    """A loss whose `y_pred` holds a location and a log scale for each target."""

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two targets, each with a location and a log scale."""
        return rng.normal(size=(batch, 2)), rng.normal(size=(batch, 4))


@register
class GaussianNLL(_LocationScale):
    """A normal's negative log-likelihood: `½·log 2π + log σ + ½((y − m)/σ)²`.

    With `beta` above 0, each target's value is multiplied by `σ^(2·beta)` without its
    gradient. Where σ is large the plain likelihood hardly moves the mean; `beta=1`
    gives the mean the gradient of half the squared error, whatever σ is.

    Args:
        beta: The power of the variance, in [0, 1]. Default 0.0, the likelihood itself.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., 2 * features): all means m, then all `log σ` (not the log variance),
    which are held within ±30. The result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.GaussianNLL()
        >>> round(float(loss(np.array([1.0]), np.array([[0.0, 0.0]]))), 4)
        1.4189

    Raises:
        ValueError: if `beta` lies outside [0, 1], or `y_pred` doesn't hold two
            parameters for each target.

    Source: Nix and Weigend, "Estimating the Mean and Variance of the Target Probability
    Distribution", 1994; beta: Seitzer et al., "On the Pitfalls of Heteroscedastic
    Uncertainty Estimation with Probabilistic Neural Networks", 2022.
    """

    def __init__(self, beta: float = 0.0, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.beta = checks.number("beta", beta, 0.0, 1.0)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        z, log_scale = standardized(*unpacked(y_true, y_pred, 2))
        nll = _HALF_LOG_TWO_PI + log_scale + 0.5 * ops.square(z)
        if self.beta:
            nll = nll * ops.stop_gradient(ops.exp(2.0 * self.beta * log_scale))
        return nll

    @classmethod
    def examples(cls) -> list[Self]:
        """The likelihood, and halfway to the squared error."""
        return [cls(), cls(beta=0.5)]


@register
class LaplaceNLL(_LocationScale):
    """A Laplace's negative log-likelihood: `log 2b + |y − m|/b`.

    With a constant scale it is the absolute error; here the scale is learned with it.

    It takes the options of `Loss`: `name`, `reduction`, `dtype` and `ignore`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., 2 * features): all medians m, then all `log b`, which are held within
    ±30. The result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.LaplaceNLL()
        >>> round(float(loss(np.array([1.0]), np.array([[0.0, 0.0]]))), 4)
        1.6931

    Raises:
        ValueError: if `y_pred` doesn't hold two parameters for each target.

    Source: Kotz, Kozubowski and Podgórski, "The Laplace Distribution and
    Generalizations", 2001.
    """

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        z, log_scale = standardized(*unpacked(y_true, y_pred, 2))
        return math.log(2.0) + log_scale + absolute(z)


@register
class StudentTNLL(_LocationScale):
    """The negative log-likelihood of Student's t, which forgives outliers.

    `log s + ½·log(πν) + log Γ(ν/2) − log Γ((ν + 1)/2) + ½(ν + 1)·log(1 + z²/ν)` with
    `z = (y − m)/s`. The degrees of freedom ν are given, or predicted with the rest; as
    they grow it becomes the normal's, and `df=1` is Cauchy's.

    Args:
        df: The degrees of freedom ν, above 0, or None where `y_pred` holds their logs.
            Default None.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., 3 * features): all locations m, then all `log s`, then all `log ν`;
    the logs are held within ±30. With a given `df`, (batch, ..., 2 * features) without
    the last. The result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.StudentTNLL(df=1.0)
        >>> round(float(loss(np.array([1.0]), np.array([[0.0, 0.0]]))), 4)
        1.8379

    Raises:
        ValueError: if `df` isn't above 0, or `y_pred` doesn't hold that many
            parameters for each target.

    Source: Lange, Little and Taylor, "Robust Statistical Modeling Using the t
    Distribution", 1989.
    """

    def __init__(self, df: float | None = None, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.df = None if df is None else checks.positive("df", df)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        y_true, packed = unpacked(y_true, y_pred, 3 if self.df is None else 2)
        residual, log_scale = y_true - packed[..., 0, :], bounded(packed[..., 1, :])
        if self.df is None:
            df = ops.exp(bounded(packed[..., 2, :]))
        else:
            df = self.df * ops.ones_like(residual)
        tails = 0.5 * (df + 1.0) * log1p_square(residual, log_scale + 0.5 * ops.log(df))
        return log_scale + _student_constant(df) + tails

    @classmethod
    def examples(cls) -> list[Self]:
        """Degrees of freedom predicted, and given."""
        return [cls(), cls(df=3.0)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two targets, each with its parameters."""
        parameters = 3 if self.df is None else 2
        return rng.normal(size=(batch, 2)), rng.normal(size=(batch, 2 * parameters))


def _student_constant(df: Tensor) -> Tensor:
    """`½·log(πν) + log Γ(ν/2) − log Γ((ν + 1)/2)`, right for huge ν too."""
    half = 0.5 * df
    rest = stirling_error(half) - stirling_error(half + 0.5)
    return _HALF_LOG_TWO_PI + 0.5 - half * ops.log1p(0.5 / half) + rest


def log1p_square(x: Tensor, log_scale: Tensor) -> Tensor:
    """`log(1 + (x/scale)²)`, also where the ratio or its square would overflow."""
    scale = ops.exp(log_scale)
    large = ops.abs(x) > scale
    inner = ops.where(large, ops.zeros_like(x), x)
    # By logarithms: the slope of a quotient has a square, which may be 0 in float32.
    outer = ops.log(ops.abs(ops.where(large, x, ops.ones_like(x)))) - log_scale
    outer = ops.where(large, outer, ops.zeros_like(outer))
    beyond = 2.0 * outer + ops.log1p(ops.exp(-2.0 * outer))
    return ops.where(large, beyond, ops.log1p(ops.square(inner * ops.exp(-log_scale))))
