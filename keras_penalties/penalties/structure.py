"""Penalties on what a matrix does: as a map, as a graph."""

from __future__ import annotations

from typing import Self

import keras
import numpy as np
from keras import ops

from keras_penalties.autodiff import own_gradient, with_gradient
from keras_penalties.numerics import as_matrix
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.refusals import one_step
from keras_penalties.registry import register
from keras_penalties.typing import Pullback, Tensor


@register
class Orthogonality(Penalty):
    """Soft orthogonality of the shorter side: `‖xᵀ·x − I‖²`, or `‖x·xᵀ − I‖²` if wide.

    The squared Frobenius norm, which is `Σ(σᵢ² − 1)²` over the singular values: 0 where
    the columns, or the rows of a wide matrix, are orthonormal. The two forms differ by
    the constant |rows − columns|, and the one taken costs less. Rows of zeros are
    harmless; Keras' `OrthogonalRegularizer` gives NaN there. The slope is 0 at x = 0, a
    point that training must not start from.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: any rank from 2 on; a kernel is made `(all other axes, output axis)`.
    Entries beyond ±1e8 count as that, so that the value does not overflow.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.Orthogonality(0.5)(np.diag([2.0, 1.0, 0.0])))
        5.0

    Raises:
        ValueError: if the strength is negative or not finite, or x has rank 1.

    Source: Bansal, Chen and Wang, "Can We Gain More from Orthogonality Regularizations
    in Training Deep CNNs?", 2018, the soft orthogonality.
    """

    convex = False
    rank = 2

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ(σᵢ² − 1)²`, by the smaller Gram matrix."""
        x = as_matrix(x)
        return _orthogonality(x if x.shape[0] >= x.shape[1] else ops.transpose(x))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """Each singular value moves to the positive root of `4t·(u³ − u) + u = σ`."""
        t = one_step(self, t)
        u, s, vt = ops.svd(as_matrix(x), full_matrices=False)
        # Newton's method from above, where the cubic is convex: it can't overshoot.
        cube = s / ops.where(t > 0, 4.0 * t, ops.ones_like(t))
        root = 1.0 + ops.where(t > 0, ops.power(cube, 1.0 / 3.0), s)
        root = ops.minimum(root, ops.maximum(s, ops.ones_like(s)))
        for _ in range(12):  # a product that starts with t is not 0 times infinity
            excess = 4.0 * t * root * (root - 1.0) * (root + 1.0) + (root - s)
            slope = 12.0 * t * (root - 3.0**-0.5) * (root + 3.0**-0.5) + 1.0
            root = root - excess / slope
        return ops.reshape(ops.matmul(u * root, vt), x.shape)


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
        largest = float(np.finfo(keras.backend.standardize_dtype(x.dtype)).max)
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
