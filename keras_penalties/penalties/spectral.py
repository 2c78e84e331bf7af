"""Penalties on singular values.

A weight of rank 3 or more is first made a matrix, `(all other axes, output axis)`, as
is usual for convolution kernels.
"""

from __future__ import annotations

import math
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.autodiff import gradient, own_gradient
from keras_penalties.compiling import compiled
from keras_penalties.numerics import as_matrix, largest_of, norm, singular_values
from keras_penalties.penalties.base import Penalty, Separable
from keras_penalties.penalties.order import SortedL1
from keras_penalties.penalties.refusals import one_step
from keras_penalties.penalties.separable import L1, ElasticNet
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Pullback, Tensor


@register
class Spectral(Penalty):
    """An even penalty on the singular values: `penalty(σ(x))`.

    `Spectral(L1(s))` is the nuclear norm, which favours a low rank; with `MCP` a rank
    penalty that leaves large singular values alone, with `Lp` a Schatten quasi-norm,
    with `SortedL1(s, [1.0])` the exact spectral norm.

    The gradient is `U·φ′(σ)·Vᵀ`, with the smallest slope φ′(0) = 0 at singular values
    of 0: those up to `max(rows, columns)·ε·σ₁`, as numpy's `matrix_rank` counts them.
    It holds U and V fixed, so there is no second derivative through it.

    With `max_rank` x counts as its best approximation of that rank. The value is that
    of the `max_rank` largest singular values, and the proximal map gives the minimiser
    among the matrices of at most that rank. So take a rank that is larger than the one
    that you expect: of the singular values that the map would otherwise leave, only
    the `max_rank` largest stay, from the first step on.

    Unless `2·max_rank + 8` reaches the shorter side the SVD is a randomised one, in a
    subspace of so many dimensions, by four power iterations from a fixed start, so that
    equal weights give equal values. The value is too small by less than 5 % where the
    singular values hardly fall, and by far less where they fall. The error of the
    proximal map, as a share of ‖x‖, is below 1 % where they hardly fall, as those of a
    random matrix, 0.2 % where they fall as 1/√j or are those of a low rank beside
    noise, and 0.001 % where they fall as 1/j. Where more than `max_rank` singular
    values would stay and some are nearly equal, others of them may stay, at a cost that
    is less than 1 % above the least. The memory's peak is that of x and two and a half
    more of its size, the result among them.

    Args:
        penalty: What acts on the singular values: an even penalty that is a sum over
            entries, or a `SortedL1`; it brings the strength.
        max_rank: The rank that a proximal map may leave, 1 or more, which says how many
            singular values are computed. Default None: all, exactly.

    Shapes: any rank from 2 on; a kernel is made `(all other axes, output axis)`.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> nuclear = kp.penalties.Spectral(kp.penalties.L1(0.5))
        >>> round(float(nuclear(np.diag([3.0, 1.0]))), 4)
        2.0

    Raises:
        ValueError: if `penalty` depends on the sign or the order of its entries, or
            `max_rank` is not a whole number from 1 on.

    Source: Fazel, Hindi and Boyd, "A Rank Minimization Heuristic", 2001; for the
    proximal map Lewis, "The Convex Analysis of Unitarily Invariant Matrix Functions",
    1995; for `max_rank` Halko, Martinsson and Tropp, "Finding Structure with
    Randomness", 2011.
    """

    ignores_zeros = True
    rank = 2

    def __init__(
        self, penalty: Separable | SortedL1, max_rank: int | None = None
    ) -> None:
        self.penalty = checks.instance("penalty", penalty, (Separable, SortedL1))
        if not self.penalty.even:
            checks.refuse("penalty", "one that ignores signs", penalty)
        self.max_rank = (
            None if max_rank is None else checks.integer("max_rank", max_rank)
        )

    @property
    def strength(self) -> StrengthLike:  # type: ignore[override]
        """The inner penalty's."""
        return self.penalty.strength

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Whether the inner penalty is, and no rank is given: ranks are not convex."""
        return bool(self.penalty.convex) and self.max_rank is None

    @property
    def has_slope(self) -> bool:  # type: ignore[override]
        """Whether the inner penalty has one."""
        return bool(self.penalty.has_slope)

    @property
    def concavity(self) -> float:
        """The inner penalty's; infinite if a rank is given."""
        return float(self.penalty.concavity) if self.max_rank is None else math.inf

    @property
    def has_prox(self) -> bool:
        """Whether the inner penalty's is known."""
        return bool(self.penalty.has_prox)

    def with_strength(self, strength: StrengthLike) -> Self:
        """The same penalty with another strength inside."""
        return type(self)(self.penalty.with_strength(strength), self.max_rank)

    def compute_value(self, x: Tensor) -> Tensor:
        """`penalty.value(σ)`."""

        @own_gradient  # that of the SVD is not right where singular values are equal
        def whole(x: Tensor) -> tuple[Tensor, Pullback]:
            limits = np.finfo(_dtype(x))
            found = singular_values(x, self.max_rank)
            u, s, vt, scale = map(ops.stop_gradient, found)
            counts = s > max(x.shape) * limits.eps * s[0]
            values = ops.where(counts, s * scale, 0.0 * s)
            value = self.penalty.value(values)
            # Of smaller ones, so that no slope is infinite.
            slopes = gradient(
                self.penalty.value, ops.minimum(values, 0.1 * float(limits.max))
            )
            slopes = ops.where(counts, slopes, 0.0 * s)
            return value, lambda upstream: ops.matmul(u * (upstream * slopes), vt)

        return whole(as_matrix(x))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The inner proximal map on the singular values."""
        t = one_step(self, t)
        u, s, vt, scale = singular_values(as_matrix(x), self.max_rank)
        largest = largest_of(x)
        values = ops.minimum(s * scale, largest)
        moved = self.penalty.prox(values, t) / scale
        # Of values beyond float32 the share that is left is that of the largest number.
        kept = s * (moved / ops.where(values > 0, values / scale, ops.ones_like(s)))
        moved = ops.where(s * scale > largest, kept, moved)
        moved = scale * ops.reshape(ops.matmul(u * moved, vt), x.shape)
        # A step of 0 changes nothing, so it cuts no rank off.
        return moved if self.max_rank is None else ops.where(t > 0, moved, x)

    @classmethod
    def examples(cls) -> list[Self]:
        """The nuclear norm, one with a curved part, and one of rank 3 at most."""
        return [cls(L1(0.5)), cls(ElasticNet(0.5)), cls(L1(0.5), max_rank=3)]


@register
class SpectralNorm(Penalty):
    """The largest singular value, which bounds how a layer amplifies: `σ₁(x)`.

    By power iteration from a fixed start, so that no state is kept and equal weights
    give equal values. The result is a lower bound of σ₁, and k iterations leave a
    relative error of about `(σ₂/σ₁)⁴ᵏ·(1 − σ₂/σ₁)`. The gradient is `u·vᵀ`; where
    σ₁ = σ₂ it is one of several that are right. For an exact value and a proximal map
    take `Spectral(SortedL1(strength, [1.0]))`. The norm is that of the kernel made a
    matrix, not of the convolution as an operator.

    Args:
        strength: The multiplier, 0 or more. Default 0.01. The source's ½·σ₁² has the
            slope σ₁·u·vᵀ in place of u·vᵀ.
        iterations: How many steps of power iteration, 1 or more. Default 30.

    Shapes: any rank from 2 on; a kernel is made `(all other axes, output axis)`.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> round(float(kp.penalties.SpectralNorm(0.5)(np.diag([3.0, 1.0]))), 4)
        1.5

    Raises:
        ValueError: if `iterations` is not a whole number from 1 on.

    Source: Yoshida and Miyato, "Spectral Norm Regularization for Improving the
    Generalizability of Deep Learning", 2017.
    """

    ignores_zeros = True
    rank = 2

    def __init__(self, strength: StrengthLike = 0.01, iterations: int = 30) -> None:
        super().__init__(strength)
        self.iterations = checks.integer("iterations", iterations)

    def compute_value(self, x: Tensor) -> Tensor:
        """`uᵀ·x·v`, with u and v held fixed."""
        x = as_matrix(x)
        # It is very unlikely that a weight is orthogonal to this vector.
        start = np.sin(np.arange(1, x.shape[1] + 1) ** 2)
        start = ops.convert_to_tensor(start, _dtype(x))
        u, v = _leading(ops.stop_gradient(x), start, self.iterations)
        return ops.sum(u * ops.matmul(x, v))

    @classmethod
    def examples(cls) -> list[Self]:
        """With so many iterations that the laws see the limit."""
        return [cls(0.5, iterations=200), cls(0.5, iterations=300)]


@compiled
def _leading(x: Tensor, v: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Unit vectors u and v after so many steps of power iteration, `uᵀ·x·v` > 0."""
    scaled = _over(x, ops.max(ops.absolute(x)))

    def step(_: Tensor, v: Tensor) -> Tensor:
        v = ops.matmul(ops.matmul(scaled, v), scaled)
        return _over(v, ops.max(ops.absolute(v)))

    v = ops.fori_loop(0, iterations, step, v)
    v, u = _over(v, norm(v)), ops.matmul(scaled, v)
    return _over(u, norm(u)), v


def _over(x: Tensor, length: Tensor) -> Tensor:
    return x / ops.where(length > 0, length, ops.ones_like(length))


def _dtype(x: Tensor) -> Any:
    return keras.backend.standardize_dtype(x.dtype)
