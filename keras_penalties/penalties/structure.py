"""Penalties on what a matrix does: as a map, as a graph."""

from __future__ import annotations

from typing import Self

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.autodiff import own_gradient, with_gradient
from keras_penalties.numerics import as_matrix, largest_of, singular_values
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.refusals import one_step
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Pullback, Tensor


@register
class Orthogonality(Penalty):
    """Soft orthogonality of the shorter side: `‖xᵀ·x − I‖²`, or `‖x·xᵀ − I‖²` if wide.

    The squared Frobenius norm, which is `Σ(σᵢ² − 1)²` over the singular values: 0 where
    the columns, or the rows of a wide matrix, are orthonormal. The two forms differ by
    the constant |rows − columns|, and the one taken costs less. Rows of zeros are
    harmless; Keras' `OrthogonalRegularizer` gives NaN there. The slope is 0 at x = 0, a
    point that training must not start from.

    With `samples` the value is an estimate without bias, by so many of the columns,
    or of the rows of a wide matrix: `columns/samples·Σⱼ ‖xᵀ·xⱼ − eⱼ‖²`. The cost falls
    with the share of the columns that are taken, and no `xᵀ·x` is in memory: the peak
    is that of x and three more of its size, the gradient among them. The gradient is
    that of the estimate, so it has no bias either, but the fewer samples there are, the
    noisier it is. Of a random kernel with 256 columns, 16 samples leave an error of 3 %
    in the value, and in the gradient one of 2.4 times the gradient's length, which
    averages out over the steps as that of a small batch does.

    The columns are equally spaced. A hash of all digits of x says where they begin. So
    a penalty needs no random state: equal weights have equal values, on each replica
    too, and each change of a weight draws anew. While no weight changes, the columns
    stay the same.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        samples: How many columns the estimate takes, 1 or more. Default None: all, so
            that the value is exact. An estimate has no proximal map.

    Shapes: any rank from 2 on; a kernel is made `(all other axes, output axis)`.
    Entries beyond ±1e8 count as that, so that the value does not overflow.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.Orthogonality(0.5)(np.diag([2.0, 1.0, 0.0])))
        5.0

    Raises:
        ValueError: if the strength is negative or not finite, `samples` is not a whole
            number from 1 on, or x has rank 1.

    Source: Bansal, Chen and Wang, "Can We Gain More from Orthogonality Regularizations
    in Training Deep CNNs?", 2018, the soft orthogonality; Cochran, "Sampling
    Techniques", 1977, for systematic samples.
    """

    convex = False
    rank = 2

    def __init__(
        self, strength: StrengthLike = 0.01, samples: int | None = None
    ) -> None:
        super().__init__(strength)
        self.samples = None if samples is None else checks.integer("samples", samples)

    @property
    def has_prox(self) -> bool:
        """Only of the exact value."""
        return self.samples is None

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ(σᵢ² − 1)²`, by the smaller Gram matrix, or by some columns of it."""
        matrix = as_matrix(x)
        tall = matrix.shape[0] >= matrix.shape[1]
        x = matrix if tall else ops.transpose(matrix)
        if self.samples is None or self.samples >= x.shape[1]:
            return _orthogonality(x)
        return _estimate(x, self.samples, hashed(matrix))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """Each singular value moves to the positive root of `4t·(u³ − u) + u = σ`."""
        if not self.has_prox:
            return super().compute_prox(x, t)
        t = one_step(self, t)
        u, s, vt, scale = singular_values(as_matrix(x))
        s = ops.minimum(s * scale, 0.1 * largest_of(x))
        # Newton's method from above, where the cubic is convex: it can't overshoot.
        cube = s / ops.where(t > 0, 4.0 * t, ops.ones_like(t))
        root = 1.0 + ops.where(t > 0, ops.power(cube, 1.0 / 3.0), s)
        root = ops.minimum(root, ops.maximum(s, ops.ones_like(s)))
        for _ in range(12):  # a product that starts with t is not 0 times infinity
            excess = 4.0 * t * root * (root - 1.0) * (root + 1.0) + (root - s)
            slope = 12.0 * t * (root - 3.0**-0.5) * (root + 3.0**-0.5) + 1.0
            root = root - excess / slope
        moved = ops.reshape(ops.matmul(u * root, vt), x.shape)
        return ops.where(t > 0, moved, x)  # also where s was held

    @classmethod
    def examples(cls) -> list[Self]:
        """The exact one, and an estimate of what has more than three columns."""
        return [cls(0.5), cls(0.5, samples=3)]


@own_gradient
def _orthogonality(x: Tensor) -> tuple[Tensor, Pullback]:
    """`‖xᵀ·x − I‖²`, whose gradient `4x·(xᵀx − I)` takes one product and not two."""
    x = ops.clip(x, -1e8, 1e8)
    gram = _gram(x)
    excess = gram - ops.eye(gram.shape[0], dtype=gram.dtype)
    total = ops.sum(ops.square(excess))
    return total, lambda upstream: ops.matmul(x, (4.0 * upstream) * excess)


def _gram(x: Tensor) -> Tensor:
    """`xᵀ·x`; of a large one the lower left block is the upper right one, turned."""
    half = x.shape[1] // 2
    if half < 256:
        return ops.matmul(ops.transpose(x), x)
    a, b = x[:, :half], x[:, half:]
    turned = ops.transpose(a)
    top, corner = ops.matmul(turned, a), ops.matmul(turned, b)
    bottom = ops.matmul(ops.transpose(b), b)
    upper = ops.concatenate([top, corner], axis=1)
    lower = ops.concatenate([ops.transpose(corner), bottom], axis=1)
    return ops.concatenate([upper, lower], axis=0)


def _estimate(x: Tensor, samples: int, start: Tensor) -> Tensor:
    """`‖xᵀ·x − I‖²` by equally spaced columns from a start on, any whole number."""

    @own_gradient
    def whole(x: Tensor) -> tuple[Tensor, Pullback]:
        x = ops.clip(x, -1e8, 1e8)
        count = x.shape[1]
        steps = np.arange(samples, dtype="int32") * (count // samples)
        return by_columns(x, ops.mod(start + steps, count))

    return whole(x)


def by_columns(x: Tensor, places: Tensor) -> tuple[Tensor, Pullback]:
    """`Σⱼ ‖xᵀ·xⱼ − eⱼ‖²` over the columns at some places, times all per sample."""
    share = x.shape[1] / places.shape[0]
    units = ops.one_hot(places, x.shape[1], dtype=x.dtype)
    chosen = ops.transpose(ops.take(x, places, axis=1))
    excess = ops.matmul(chosen, x) - units

    def pullback(upstream: Tensor) -> Tensor:
        """`2·share·(chosenᵀ·excess + x·excessᵀ·units)`, as one product."""
        # XLA makes this `excess·xᵀ`, a tenth of the time of its transpose where x is
        # turned; TensorFlow does as is written, and copies no transpose of x.
        turned = ops.transpose(ops.matmul(x, ops.transpose(excess)))
        left = ops.transpose(ops.concatenate([chosen, turned], axis=0))
        right = ops.concatenate([excess, units], axis=0)
        return ops.matmul(left, (2.0 * share * upstream) * right)

    return share * ops.sum(ops.square(excess)), pullback


def hashed(x: Tensor) -> Tensor:
    """A whole number that any change of a matrix changes, in no order: a hash.

    The leading 24 binary digits of a sum with irregular factors, mixed as in MurmurHash
    3. The products overflow on purpose: int32 wraps around.
    """
    left, right = (
        ops.convert_to_tensor(np.sin(np.arange(1, n + 1) ** 2), x.dtype)
        for n in x.shape
    )
    x = ops.stop_gradient(ops.clip(x, -1e8, 1e8))
    total = ops.absolute(ops.sum(left * ops.matmul(x, right)))
    total = ops.cast(ops.where(total > 1e-30, total, ops.ones_like(total)), "float32")
    mantissa = total / ops.power(2.0, ops.floor(ops.log2(total)))
    mixed = ops.cast(2.0**23 * mantissa, "int32")
    for factor in np.array([0x85EBCA6B, 0xC2B2AE35], "uint32").view("int32"):
        mixed = ops.bitwise_xor(mixed, ops.bitwise_right_shift(mixed, 15))
        mixed = mixed * ops.convert_to_tensor(factor)
    return ops.bitwise_right_shift(mixed, 8)


@register
class Acyclicity(Penalty):
    """How far a weighted graph is from one without cycles: `tr exp(x∘x) − d`.

    x is the adjacency matrix of d nodes and ∘ the product of entries: 0 if and only if
    no path leads back to where it began, self-loops included. Exact up to rounding, by
    scaling and squaring, also where it is near 0. Beyond the largest number of the
    dtype it is infinite, never NaN. The gradient is `2x∘exp(x∘x)ᵀ`, held at a tenth of
    that number; there is no second derivative.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: (d, d).

    Example:
        >>> import keras_penalties as kp
        >>> acyclic = kp.penalties.Acyclicity(1.0)
        >>> round(float(acyclic([[0.0, 1.0], [1.0, 0.0]])), 4)  # 2·cosh 1 - 2
        1.0862
        >>> float(acyclic([[0.0, 5.0], [0.0, 0.0]]))
        0.0

    Raises:
        ValueError: if x is not a square matrix.

    Source: Zheng et al., "DAGs with NO TEARS", 2018.
    """

    convex = False
    rank = 2

    def compute_value(self, x: Tensor) -> Tensor:
        """`tr exp(x∘x) − d`."""
        if len(x.shape) != 2 or x.shape[0] != x.shape[1]:
            raise ValueError(
                "Acyclicity needs a square matrix. Received: a tensor of shape "
                f"{tuple(x.shape)}"
            )
        largest = largest_of(x)
        rest, trace = _expm1(ops.square(ops.clip(x, -1e9, 1e9)), largest)
        slope = 2.0 * ops.transpose(rest + ops.eye(x.shape[0], dtype=x.dtype)) * x
        return with_gradient(trace, x, ops.clip(slope, -0.1 * largest, 0.1 * largest))

    @classmethod
    def examples(cls) -> list[Self]:
        """A strength."""
        return [cls(0.5)]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Square ones."""
        return [(3, 3), (4, 4)]


def _expm1(
    a: Tensor, largest: float, halvings: int = 12, terms: int = 8
) -> tuple[Tensor, Tensor]:
    """`exp(a) − I` of a matrix without negative entries, and its trace.

    A Taylor series of `a / 2¹²`, then `exp(2b) − I = 2·(exp(b) − I) + (exp(b) − I)²`,
    where nothing cancels. Factors are held where their product can't overflow, except
    for the trace, which may be infinite.
    """
    bound = (0.1 * largest / a.shape[0]) ** 0.5

    def product(left: Tensor, right: Tensor) -> Tensor:
        return ops.matmul(ops.minimum(left, bound), ops.minimum(right, bound))

    a = a / 2.0**halvings
    result = a
    for k in range(terms, 1, -1):
        result = a + product(a, result) / k
    for _ in range(halvings - 1):
        result = 2.0 * result + product(result, result)
    trace = 2.0 * ops.trace(result) + ops.sum(result * ops.transpose(result))
    return 2.0 * result + product(result, result), trace
