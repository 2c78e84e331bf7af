"""Losses whose softmax has another tail: sparse (entmax) or heavy (bi-tempered).

Both come from one exponential, `exp_t(x) = [1 + (1 − t)·x]₊^(1/(1 − t))`, which is exp
at t = 1: entmax with alpha is the softmax of `exp_t` at t = 2 − alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self, Unpack

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import LossOptions
from keras_penalties.losses.classification import ClassLoss
from keras_penalties.losses.shapes import class_probabilities
from keras_penalties.registry import register
from keras_penalties.typing import Tensor

_LOWEST = -1e30
"""A finite number for log 0: its product with 0 is 0, and its exp is 0."""


def log_exp_t(x: Tensor, t: float) -> Tensor:
    """`log exp_t(x)`: log1p keeps the digits that the power would lose near t = 1."""
    if t == 1.0:
        return x
    base = (1.0 - t) * x
    inside = base > -1.0
    logs = ops.log1p(ops.where(inside, base, ops.zeros_like(base))) / (1.0 - t)
    return ops.where(inside, logs, _LOWEST * ops.ones_like(logs))


def log_t(log_x: Tensor, t: float) -> Tensor:
    """`log_t(x) = (x^(1 − t) − 1)/(1 − t)`, the inverse of `exp_t`, of `log x`."""
    return log_x if t == 1.0 else ops.expm1((1.0 - t) * log_x) / (1.0 - t)


def tempered_log_softmax(logits: Tensor, t: float) -> Tensor:
    """log p with `p = exp_t(logits − θ)`, where θ makes the sum 1.

    Args:
        logits: (..., classes).
        t: Below 1 some p are exactly 0, and their logs -1e30.
    """
    if t == 1.0:
        return ops.log_softmax(logits, axis=-1)
    highest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    logits = logits - highest
    fixed = ops.stop_gradient(logits)

    def surplus(logits: Tensor, theta: Tensor) -> Tensor:
        p = ops.exp(log_exp_t(logits - theta, t))
        return ops.sum(p, axis=-1, keepdims=True) - 1.0

    # The largest p lies in [1/classes, 1]: its log is looked for, as θ may be huge.
    zero = ops.zeros_like(fixed[..., :1])
    log_classes = zero + math.log(logits.shape[-1])
    root = decreasing_root(lambda v: surplus(fixed, -log_t(-v, t)), zero, log_classes)
    theta = -log_t(-root, t)
    # One step of Newton's method: it improves θ, and has the gradient of the exact θ.
    log_p = log_exp_t(fixed - theta, t)
    powers = ops.where(log_p > _LOWEST, ops.exp(t * log_p), ops.zeros_like(log_p))
    slope = ops.sum(powers, axis=-1, keepdims=True)
    return log_exp_t(logits - theta - surplus(logits, theta) / slope, t)


def decreasing_root(
    fn: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> Tensor:
    """Where a decreasing function is 0, between `low` and `high`, by bisection."""
    double = keras.backend.standardize_dtype(low.dtype) == "float64"

    def halved(_: Tensor, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        low, high = ends
        middle = 0.5 * (low + high)
        above = fn(middle) > 0
        return ops.where(above, middle, low), ops.where(above, high, middle)

    low, high = ops.fori_loop(0, 60 if double else 30, halved, (low, high))
    return 0.5 * (low + high)


@register
class EntmaxLoss(ClassLoss):
    """Crossentropy's cousin with sparse probabilities, p = α-entmax(logits).

    `(p − y)·z + H_α(p)` with Tsallis' entropy `H_α(p) = Σ(p − p^α)/(α(α − 1))`. The
    gradient is `p − y`, and p has exact zeros for α above 1: the loss is 0 as soon as
    the true class leads by `1/(α − 1)`. α = 1 is Keras' crossentropy, α = 2 the
    sparsemax loss. Second derivatives are not given: p is held fixed in the gradient.

    Args:
        alpha: The sparsity α, 1 or more. Default 1.5.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or
    probabilities (batch, ..., classes). `y_pred`, logits z, (batch, ..., classes). The
    result is (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.EntmaxLoss(alpha=2.0)
        >>> float(loss(np.array([0]), np.array([[0.5, 0.0]])))
        0.0625

    Raises:
        ValueError: if `alpha` is below 1, or the shapes don't fit.

    Source: Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", 2019.
    """

    def __init__(self, alpha: float = 1.5, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.alpha = checks.number("alpha", alpha, 1.0)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per sample."""
        true = class_probabilities(y_true, y_pred)
        t = 2.0 - self.alpha
        log_p = ops.stop_gradient(tempered_log_softmax(y_pred, t))
        p = ops.exp(log_p)
        entropy = -ops.sum(p * log_t(log_p, t), axis=-1) / self.alpha
        # Scores are differences to the highest, which cancel as Σ(p − y) is 0.
        shifted = y_pred - ops.stop_gradient(ops.max(y_pred, axis=-1, keepdims=True))
        return ops.sum((p - true) * shifted, axis=-1) + entropy

    @classmethod
    def examples(cls) -> list[Self]:
        """Softmax, the middle, sparsemax, and beyond."""
        return [cls(1.0), cls(1.5), cls(2.0), cls(3.0)]


@register
class BiTempered(ClassLoss):
    """Crossentropy for wrong labels and outliers: a bounded log and a heavy tail.

    `Σ_k y_k·(log_t1 y_k − log_t1 p_k) − (y_k^(2−t1) − p_k^(2−t1))/(2 − t1)`, where
    `log_t(x) = (x^(1−t) − 1)/(1 − t)` and `p = exp_t2(logits − θ)`, normalised by θ.
    Below 1, `t1` bounds the loss; above 1, `t2` keeps small probabilities from
    vanishing. Both 1 is Keras' crossentropy (less the entropy of soft targets).

    Args:
        t1: The temperature of the logarithm, in [0, 1]. Default 0.8.
        t2: The temperature of the softmax, 1 or more. Default 1.2.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or
    probabilities (batch, ..., classes). `y_pred`, logits, (batch, ..., classes). The
    result is (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.BiTempered(t1=0.0, t2=1.0)
        >>> float(loss(np.array([0]), np.zeros((1, 2))))
        0.25

    Raises:
        ValueError: if a temperature is out of its range, or the shapes don't fit.

    Source: Amid et al., "Robust Bi-Tempered Logistic Loss Based on Bregman
    Divergences", 2019.
    """

    def __init__(
        self, t1: float = 0.8, t2: float = 1.2, **kwargs: Unpack[LossOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.t1 = checks.number("t1", t1, 0.0, 1.0)
        self.t2 = checks.number("t2", t2, 1.0)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per sample."""
        true = class_probabilities(y_true, y_pred)
        log_p = tempered_log_softmax(y_pred, self.t2)
        log_y = ops.log(ops.where(true == 0, ops.ones_like(true), true))
        power = 2.0 - self.t1
        logs = true * (log_t(log_y, self.t1) - log_t(log_p, self.t1))
        # Where y is 0 the log above stands for that of 1, but it is multiplied by 0.
        powers = ops.where(true == 0, ops.zeros_like(true), ops.exp(power * log_y))
        return ops.sum(logs - (powers - ops.exp(power * log_p)) / power, axis=-1)

    @classmethod
    def examples(cls) -> list[Self]:
        """Both tempered, and neither."""
        return [cls(), cls(0.3, 2.0), cls(1.0, 1.0)]
