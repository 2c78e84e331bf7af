"""Penalties on what a layer gives out, statistics of a batch among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.masks import real_mean
from keras_penalties.numerics import (
    absolute,
    as_matrix,
    as_rows,
    bounded,
    norm,
    positive_part,
)
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register
class KLSparsity(Penalty):
    """Draws each unit's mean activation to a small rate: `Σ_units KL(rate ‖ mean)`.

    `KL(ρ‖q) = ρ·log(ρ/q) + (1 − ρ)·log((1 − ρ)/(1 − q))`, where q is the mean over all
    axes except the last. It is a statistic of the batch: it is never divided by the
    batch size, and has the same value for a batch and for the batch repeated. So
    `ActivityPenalty` applies it, and a Keras slot can't. Nearer than 1e-7 to 0 or 1 the
    formula goes on along its tangent, so that a dead unit still has a finite gradient.

    Args:
        strength: The multiplier β, 0 or more. Default 0.01. Beside an error that is a
            *sum* over m samples, β must be m times what it is beside their mean.
        rate: The wanted mean activation ρ, in (0, 1). Default 0.1.

    Shapes: (batch, ..., units); activations in (0, 1), such as a sigmoid's.

    Example:
        >>> import keras_penalties as kp
        >>> kl = kp.penalties.KLSparsity(1.0, rate=0.1)
        >>> round(float(kl.value([[0.1, 0.4], [0.1, 0.6]])), 4)
        0.3681

    Raises:
        ValueError: if `rate` is not strictly between 0 and 1.

    Source: Ng, "Sparse Autoencoder", CS294A lecture notes, 2011.
    """

    domain = (0.0, 1.0)
    even = False
    rank = 1
    statistic = "mean"

    def __init__(self, strength: StrengthLike = 0.01, rate: float = 0.1) -> None:
        super().__init__(strength)
        self.rate = checks.fraction("rate", rate)

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ_units KL(rate ‖ mean activation)`."""
        return self._divergence(ops.mean(x, axis=tuple(range(len(x.shape) - 1))))

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same with the mean over the real rows."""
        mean, count = real_mean(x, mask)
        some = count > 0  # else the mean is set to where the slope is 0
        value = self._divergence(ops.where(some, mean, self.rate * ops.ones_like(mean)))
        return ops.where(some, value, ops.zeros_like(value))

    def _divergence(self, mean: Tensor) -> Tensor:
        """The sum over units, each of a mean activation."""
        rate, margin = self.rate, keras.config.epsilon()
        q = ops.clip(mean, margin, 1.0 - margin)
        inside = rate * ops.log(rate / q) + (1.0 - rate) * ops.log(
            (1.0 - rate) / (1.0 - q)
        )
        q = ops.stop_gradient(q)
        slope = (1.0 - rate) / (1.0 - q) - rate / q
        outside = slope * (mean - ops.clip(mean, margin, 1.0 - margin))
        return ops.sum(inside + outside)

    @classmethod
    def examples(cls) -> list[Self]:
        """The tutorial's rate and a rarer one."""
        return [cls(0.5), cls(2.0, rate=0.01)]


@register
class Hoyer(Penalty):
    """How many entries a vector really uses: `(Σ|x|)² / Σx²`.

    Between 1, one entry alone, and the number of entries, all alike. It does not change
    with the scale of x, so it makes x sparse and does not shrink it. Add an L2 to keep
    the scale bounded. A vector of zeros counts 0, with slope 0.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        axis: The axis, or axes, that index the vectors, whose values are summed: 0 for
            activations, each sample by itself. Default None: all of x is one vector, as
            the source has it for a weight.

    Shapes: any that has the axes of `axis`.

    Example:
        >>> import keras_penalties as kp
        >>> round(float(kp.penalties.Hoyer(0.5)([3.0, -3.0, 0.0])), 4)
        1.0

    Raises:
        ValueError: if `axis` is not None, an axis, or a list of different ones.

    Source: Yang, Wen and Li, "DeepHoyer: Learning Sparser Neural Network with
    Differentiable Scale-Invariant Sparsity Measures", 2020.
    """

    convex = False
    ignores_zeros = True

    def __init__(
        self, strength: StrengthLike = 0.01, axis: int | Sequence[int] | None = None
    ) -> None:
        super().__init__(strength)
        self.axis = None if axis is None else checks.axes("axis", axis)

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ (Σ|x|)² / Σx²` over the vectors."""
        rows = as_rows(x, self.axis)
        # The value does not depend on the scale, so x is scaled first: in the slope the
        # square of a tiny x would be 0.
        largest = ops.max(ops.absolute(rows), axis=1, keepdims=True)
        scale = ops.where(largest > 0, largest, ops.ones_like(largest))
        rows = rows / ops.stop_gradient(scale)
        length = norm(rows, axis=1, keepdims=True)
        unit = rows / ops.where(length > 0, length, ops.ones_like(length))
        return ops.sum(ops.square(ops.sum(absolute(unit), axis=1)))

    @classmethod
    def examples(cls) -> list[Self]:
        """A weight, and each sample of a batch."""
        return [cls(0.5), cls(0.5, axis=0)]


@register
class Decorrelation(Penalty):
    """DeCov: units that don't repeat each other: `½·Σᵢ≠ⱼ Cᵢⱼ²`.

    C is the covariance of the units over all axes except the last, divided by their
    number of entries N. It is a statistic of the batch, the same for the batch
    repeated: `ActivityPenalty` applies it, and a Keras slot can't.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: activations (batch, ..., units). Entries beyond ±1e8 count as that, so that
    the value does not overflow.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.Decorrelation().value([[1.0, 2.0], [-1.0, -2.0]]))
        4.0

    Raises:
        ValueError: if the strength is negative or not finite, or x has rank 1.

    Source: Cogswell et al., "Reducing Overfitting in Deep Networks by Decorrelating
    Representations", 2016.
    """

    convex = False
    rank = 2
    statistic = "batch"

    def compute_value(self, x: Tensor) -> Tensor:
        """`½·Σᵢ≠ⱼ Cᵢⱼ²`."""
        return 0.5 * _off_diagonal(_covariance(x))

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same with the covariance over the real rows."""
        return 0.5 * _off_diagonal(_masked_covariance(x, mask)[0])


@register
class VarianceCovariance(Penalty):
    """VICReg's terms: `1/d·Σⱼ max(0, γ − √(Cⱼⱼ + 10⁻⁴)) + c/d·Σᵢ≠ⱼ Cᵢⱼ²`.

    C is the covariance of d units over all axes except the last. The first term asks
    each unit to vary over the batch, the second that no two units repeat each other. C
    is divided by the number of entries N, where the source has N − 1: so the value is
    the same for a batch and for the batch repeated. It is a statistic of the batch:
    `ActivityPenalty` applies it, and a Keras slot can't.

    Args:
        strength: The multiplier, 0 or more. Default 0.01; the source has 25.
        deviation: γ, the least standard deviation of each unit, above 0. Default 1.
        covariance: c, the second term's weight beside the first, 0 or more. Default
            0.04, the source's 1 to 25.

    Shapes: embeddings (batch, ..., units). Entries beyond ±1e8 count as that, so that
    the value does not overflow.

    Example:
        >>> import keras_penalties as kp
        >>> vary = kp.penalties.VarianceCovariance(1.0, covariance=0.5)
        >>> round(float(vary.value([[1.0, 1.0], [-1.0, -1.0]])), 4)
        0.5

    Raises:
        ValueError: if `deviation` is not above 0, or `covariance` is below it.

    Source: Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance
    Regularization for Self-Supervised Learning", 2022, eq. 1 to 4.
    """

    convex = False
    rank = 2
    statistic = "batch"

    def __init__(
        self,
        strength: StrengthLike = 0.01,
        deviation: float = 1.0,
        covariance: float = 0.04,
    ) -> None:
        super().__init__(strength)
        self.deviation = checks.positive("deviation", deviation)
        self.covariance = checks.non_negative("covariance", covariance)

    def compute_value(self, x: Tensor) -> Tensor:
        """The mean missing deviation, and the squared covariances per unit."""
        return self._of_covariance(_covariance(x))

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same with the covariance over the real rows."""
        covariance, count = _masked_covariance(x, mask)
        value = self._of_covariance(covariance)
        return ops.where(count > 0, value, ops.zeros_like(value))

    def _of_covariance(self, c: Tensor) -> Tensor:
        missing = positive_part(self.deviation - ops.sqrt(ops.diagonal(c) + 1e-4))
        return ops.mean(missing) + self.covariance * _off_diagonal(c) / c.shape[0]

    @classmethod
    def examples(cls) -> list[Self]:
        """The paper's weights, and others."""
        return [cls(0.5), cls(0.5, deviation=2.0, covariance=1.0)]


def _covariance(x: Tensor) -> Tensor:
    """The covariance of the last axis' units over all entries of the others."""
    rows = bounded(as_matrix(x), 1e8)
    rows = rows - ops.mean(rows, axis=0)
    return ops.matmul(ops.transpose(rows), rows) / ops.cast(
        ops.shape(rows)[0], rows.dtype
    )


def _masked_covariance(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same over the real rows, 0 if there are none; and the number of these."""
    x = bounded(x, 1e8)
    mean, count = real_mean(x, mask)
    rows = as_matrix(ops.where(mask, x - mean, ops.zeros_like(x)))
    squares = ops.matmul(ops.transpose(rows), rows)
    return squares / ops.maximum(count, 1.0), count


def _off_diagonal(c: Tensor) -> Tensor:
    """The sum of squares off the diagonal."""
    return ops.sum(ops.square(c * (1.0 - ops.eye(c.shape[0], dtype=c.dtype))))
