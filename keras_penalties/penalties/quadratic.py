"""Quadratic forms with given coefficients: smoothness, and nearness to a reference."""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.anchors import Anchor, anchored, refuse_start, starts
from keras_penalties.numerics import bounded, scaled
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.refusals import one_step, refuse_part
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register
class Quadratic(Penalty):
    """Smoothness by a given matrix A, along one axis: `½·Σ xᵀ·A·x`.

    The sum runs over all vectors along the axis. `Quadratic.laplacian` takes a graph:
    neighbours then have like weights; `Quadratic.differences` takes the order of
    differences that are to be small.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        matrix: A, symmetric and positive semi-definite. It is saved with the config.
        axis: Along which axis of x the vectors lie. Default 0: along the inputs of a
            dense kernel.

    Shapes: any with as many entries along `axis` as A has rows.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        >>> smooth = kp.penalties.Quadratic.laplacian(1.0, path)
        >>> round(float(smooth([1.0, 2.0, 4.0])), 4)  # ½·(1² + 2²)
        2.5

    Raises:
        ValueError: if `matrix` is not square, symmetric and positive semi-definite, or
            x does not fit it.

    Source: Belkin, Niyogi and Sindhwani, "Manifold Regularization", 2006; Eilers, "A
    Perfect Smoother", 2003, for the differences.
    """

    rank = 1

    def __init__(
        self, strength: StrengthLike = 0.01, matrix: Any = ((1.0,),), axis: int = 0
    ) -> None:
        super().__init__(strength)
        self.matrix: list[list[float]] = checks.floats("matrix", matrix, rank=2)
        self.axis = checks.integer("axis", axis, low=-(2**31))
        self._roots, self._vectors = _eigen(np.asarray(self.matrix))

    @classmethod
    def laplacian(cls, strength: StrengthLike, graph: Any, axis: int = 0) -> Self:
        """`¼·Σᵢⱼ graphᵢⱼ·(xᵢ − xⱼ)²`, of a symmetric matrix of weights, 0 or more."""
        edges = np.array(checks.floats("graph", graph, rank=2, low=0.0))
        if edges.shape[0] != edges.shape[1] or not np.allclose(edges, edges.T):
            checks.refuse("graph", "a square, symmetric matrix", graph)
        return cls(strength, np.diag(np.sum(edges, axis=0)) - edges, axis)

    @classmethod
    def differences(
        cls, strength: StrengthLike, size: int, order: int = 1, axis: int = 0
    ) -> Self:
        """`½·‖Δᵒx‖²`, the differences of an order between `size` entries."""
        checks.integer("size", size)
        checks.integer("order", order)
        step = np.diff(np.eye(size), order, axis=0)
        return cls(strength, step.T @ step, axis)

    def compute_value(self, x: Tensor) -> Tensor:
        """`½·Σλ·(vᵀx)²`, of A's eigenvalues and eigenvectors: never below 0."""
        return 0.5 * ops.sum(ops.square(self._root(x) * self._turned(x)))

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """Refused along an axis of the mask: A has a row for each entry."""
        if mask.shape[self.axis] != 1:
            refuse_part(self)
        return self.compute_value(x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """`(I + t·A)⁻¹·x`, in the basis of A's eigenvectors."""
        t, (x, scale) = one_step(self, t), scaled(x)
        turned = self._turned(x) / (1.0 + t * ops.square(self._root(x)))
        back = ops.matmul(_constant(self._vectors, x), turned)
        ahead = ops.moveaxis(x, self.axis, 0)
        return scale * ops.moveaxis(ops.reshape(back, ahead.shape), 0, self.axis)

    def _turned(self, x: Tensor) -> Tensor:
        """The vectors in the eigenvectors' basis, as columns.

        Entries beyond ±1e30, of which a sum could be NaN, count as that. Their squares
        are infinite anyway.
        """
        ahead, size = ops.moveaxis(bounded(x, 1e30), self.axis, 0), len(self.matrix)
        if ahead.shape[0] != size:
            raise ValueError(
                f"Quadratic needs {size} entries along axis {self.axis}, one for each "
                f"row of its matrix. Received: a tensor of shape {tuple(x.shape)}"
            )
        columns = ops.reshape(ahead, (size, -1))
        return ops.matmul(_constant(self._vectors.T, x), columns)

    def _root(self, x: Tensor) -> Tensor:
        return _constant(self._roots[:, None], x)

    @classmethod
    def examples(cls) -> list[Self]:
        """A graph, differences, and the last axis."""
        ring = np.roll(np.eye(4), 1, axis=0) + np.roll(np.eye(4), -1, axis=0)
        return [
            cls.laplacian(0.5, ring),
            cls.differences(0.5, 4, order=2),
            cls(0.5, [[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 1.0]], axis=-1),
        ]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Of the matrix's size along the axis."""
        size = len(self.matrix)
        return [(size,), (4, 3), (2, 2, 3) if self.axis else (size, 2)]


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square roots of the eigenvalues, and the eigenvectors as columns."""
    expected = "a square, symmetric, positive semi-definite matrix"
    if matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T):
        checks.refuse("matrix", expected, matrix)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    if values[0] < -1e-6 * max(values[-1], 0.0) or values[-1] < 0:
        checks.refuse("matrix", expected, matrix)
    return np.sqrt(np.maximum(values, 0.0)), vectors


def _constant(array: Any, like: Tensor) -> Tensor:
    return ops.convert_to_tensor(array, keras.backend.standardize_dtype(like.dtype))


@register
class ToReference(Penalty):
    """Stay near given values: `½·Σ weights·(x − values)²`.

    With a pretrained weight as `values` this is L2-SP; with the diagonal of the Fisher
    information as `weights`, too, it is elastic weight consolidation.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        values: The reference, an array that broadcasts to x, or `"start"`: the weight
            as it is before the first step of training. Default 0.
        weights: How much each entry matters, 0 or more, an array that broadcasts to x,
            such as one of `keras_penalties.fisher`. Default None: 1 for each.

    A layer or an optimizer keeps what it has from `"start"`, and arrays of more than
    1,000 numbers, among its weights: they are saved and loaded as weights are. Smaller
    arrays lie in the config, so that a Keras slot takes these, and only these.

    Shapes: any that `values` and `weights` broadcast to.

    Example:
        >>> import keras_penalties as kp
        >>> near = kp.penalties.ToReference(1.0, values=[1.0, 2.0], weights=[1.0, 4.0])
        >>> float(near([0.0, 1.0]))
        2.5

    Raises:
        ValueError: if an array is not finite, weights are negative, or x is smaller; if
            `"start"` or the config of a large array is asked of who keeps no weights.

    Source: Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning
    with Convolutional Networks", 2018; Kirkpatrick et al., "Overcoming Catastrophic
    Forgetting in Neural Networks", 2017.
    """

    even = False
    joint = "square"
    per_entry = True

    def __init__(
        self, strength: StrengthLike = 0.01, values: Any = 0.0, weights: Any = None
    ) -> None:
        super().__init__(strength)
        self.values = values if starts(values) else anchored("values", values)
        self.weights = (
            None if weights is None else anchored("weights", weights, low=0.0)
        )

    @property
    def anchors(self) -> dict[str, Anchor | None]:
        """The start, and the large arrays."""
        found: dict[str, Anchor | None] = {}
        if starts(self.values):
            found["values"] = None
        for name, given in (("values", self.values), ("weights", self.weights)):
            if isinstance(given, Anchor):
                found[name] = given
        return found

    def compute_value(self, x: Tensor) -> Tensor:
        """`½·Σ weights·(x − values)²`."""
        weights, values = self.square(x)
        # The root first: a large square may have a small weight.
        return 0.5 * ops.sum(ops.square(ops.sqrt(weights) * (x - values)))

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same, with the values themselves in place of what is masked."""
        return self.compute_value(ops.where(mask, x, self._like(x, self.values)))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The mean of x and the values, weighted by 1 and t·weights."""
        weights, values = self.square(x)
        pull = t * weights
        return x / (1.0 + pull) + values * (pull / (1.0 + pull))

    def square(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and the values, as tensors that fit x."""
        weights = 1.0 if self.weights is None else self.weights
        return self._like(x, weights), self._like(x, self.values)

    @property
    def uniform(self) -> bool:  # type: ignore[override]
        """Whether there are no weights, or one for all entries."""
        given = getattr(self.weights, "shape", None)
        return tuple(np.shape(self.weights or 0.0) if given is None else given) == ()

    def _like(self, x: Tensor, given: Any) -> Tensor:
        """An array as a tensor that fits x."""
        if starts(given):
            refuse_start(self)
        if isinstance(given, Anchor):
            given = given.numbers()
        array = given if ops.is_tensor(given) else np.asarray(given)
        shape = tuple(array.shape)
        pairs = zip(reversed(shape), reversed(x.shape), strict=False)
        fits = all(a in (1, b) for a, b in pairs) and len(shape) <= len(x.shape)
        if not fits:
            raise ValueError(
                f"ToReference has an array of shape {shape}, which does not broadcast "
                f"to what it penalises: shape {tuple(x.shape)}"
            )
        return _constant(array, x)

    @classmethod
    def examples(cls) -> list[Self]:
        """One value for all, and a reference with weights."""
        return [cls(0.5, 0.3), cls(0.5, [0.5, -1.0, 0.0], [0.0, 1.0, 3.0])]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Those that the values broadcast to."""
        shapes = super().example_shapes()
        return shapes if np.ndim(self.values) == 0 else [(3,), (4, 3), (2, 2, 3)]
