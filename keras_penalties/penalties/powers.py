"""Sums of powers |x|^p, from the count of nonzeros, p = 0, to the sum of squares."""

from __future__ import annotations

import math
from typing import Self

from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import absolute, soft_threshold
from keras_penalties.penalties.base import Separable
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register
class L0(Separable):
    """The count of nonzeros: `Σ [x ≠ 0]`.

    It charges each nonzero the same, however large it is, and shrinks none. A count has
    no gradient, so only `Proximal` applies it: a Keras slot or a layer refuses it.

    The map is the hard threshold at `√(2t)`, where t is strength times step size: the
    larger the learning rate, the more entries become zero. A weight at rest is a local
    minimum, of which there are many. Under an adaptive optimizer the threshold is lower
    for entries with large gradients. So let the strength rise slowly, until there are
    as many zeros as you want, and then tune what is left by `HoldZeros`.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> count = kp.penalties.L0(0.5)
        >>> float(count.value(np.array([3.0, -1.0, 0.0])))
        2.0
        >>> [float(u) for u in count.prox([3.0, -1.0, 0.5], 0.5)]  # |x| = √(2t) is 0
        [3.0, 0.0, 0.0]

    Raises:
        ValueError: if the strength is negative or not finite.

    Source: Blumensath and Davies, "Iterative Thresholding for Sparse Approximations",
    2008.
    """

    convex = False
    joint = "entries"
    has_slope = False

    def entrywise(self, x: Tensor) -> Tensor:
        """1 of each entry that is not 0."""
        return ops.cast(x != 0, x.dtype)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The hard threshold. An entry that is equally good kept and zero is zero."""
        return ops.where(ops.absolute(x) > ops.sqrt(2.0 * t), x, ops.zeros_like(x))


@register
class Lp(Separable):
    """The p-th power, or bridge penalty: `Σ |x|^p`.

    With p below 1 it stands between L1 and a count of nonzeros, and is concave away
    from 0; the slope at 0, infinite on both sides, counts as 0. With p of 1 and above
    it is convex: L1 at 1, L2 at 2. Between them it makes no zeros, and shrinks large
    entries less than L2 and small ones less than L1.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        p: The power, in (0, 2]. Default 0.5.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.Lp(1.0, p=0.5)(np.array([4.0, -1.0, 0.0])))
        3.0

    Raises:
        ValueError: if `p` is not above 0 or is above 2.

    Source: Frank and Friedman, "A Statistical View of Some Chemometrics Regression
    Tools", 1993; for the threshold Marjanovic and Solo, "On ℓq Optimization and Matrix
    Completion", 2012.
    """

    joint = "entries"

    def __init__(self, strength: StrengthLike = 0.01, p: float = 0.5) -> None:
        super().__init__(strength)
        self.p = checks.number("p", p, 0.0, 2.0, open_low=True)

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Whether p is 1 or more."""
        return self.p >= 1.0

    @property
    def elastic(self) -> tuple[float, float] | None:  # type: ignore[override]
        """That of L1 or L2, where p is 1 or 2."""
        return {1.0: (1.0, 0.0), 2.0: (0.0, 2.0)}.get(self.p)

    def entrywise(self, x: Tensor) -> Tensor:
        """`|x|^p`."""
        zero = x == 0
        size = ops.where(zero, ops.ones_like(x), absolute(x))
        return ops.where(zero, ops.zeros_like(x), ops.power(size, self.p))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """L1's or L2's map, or the root of `u + t·p·u^(p − 1) − |x|`."""
        if self.p == 1.0:
            return soft_threshold(x, t)
        if self.p == 2.0:
            return x / (1.0 + 2.0 * t)
        root = self._root if self.convex else self._larger_root
        return ops.sign(x) * root(ops.absolute(x), t)

    def _larger_root(self, size: Tensor, t: Tensor) -> Tensor:
        """0 up to a threshold, then the larger of two roots.

        By Newton's method from |x|, where the curve is convex and its slope at least
        1 − p/2: it comes down to the root, in float32 and float64 within 8 steps.
        """
        p = self.p
        least = ops.power(2.0 * (1.0 - p) * t, 1.0 / (2.0 - p))  # of all but 0
        alive = size > least * (2.0 - p) / (2.0 - 2.0 * p)
        start = ops.where(alive, size, ops.ones_like(size))
        root = start
        for _ in range(8):
            pull = t * p * ops.power(root, p - 1.0)
            slope = 1.0 + (p - 1.0) * pull / root
            root = root - (root + pull - start) / slope
        return ops.where(alive, root, ops.zeros_like(size))

    def _root(self, size: Tensor, t: Tensor) -> Tensor:
        """The one root, for p between 1 and 2.

        By Newton's method for w = log(u/|x|), the root of `log(exp(w) + c·exp(w·(p −
        1)))` with c = t·p·|x|^(p − 2). That curve is convex, and its slope lies between
        p − 1 and 1: from where the larger of the two terms is 1, it comes down to the
        root, in float32 and float64 within 10 steps.
        """
        power = self.p - 1.0
        alive = size > 0
        start = ops.where(alive, size, ops.ones_like(size))
        shift = ops.log(t) + math.log(self.p) + (power - 1.0) * ops.log(start)
        w = ops.minimum(-shift / power, 0.0)
        for _ in range(10):
            one, other = ops.exp(w), ops.exp(shift + power * w)
            total = one + other
            w = w - total * ops.log(total) / (one + power * other)
        return ops.where(alive, start * ops.exp(w), ops.zeros_like(size))

    @classmethod
    def examples(cls) -> list[Self]:
        """A root, near to a count of nonzeros, near to L1, and between L1 and L2."""
        return [cls(0.5), cls(0.5, p=0.1), cls(0.5, p=0.9), cls(0.5, p=1.5)]
