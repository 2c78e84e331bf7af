"""Penalties that are a sum over single entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from keras import ops

from keras_penalties import checks
from keras_penalties.compiling import pays_to_fuse_sum
from keras_penalties.numerics import absolute, positive_part, soft_threshold
from keras_penalties.penalties.base import Separable
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register(string_name=False)  # "l1" in a slot is Keras' own.
class L1(Separable):
    """The sum of absolute values, which favours exact zeros: `Σ|x|`.

    The slope at 0 is 0 on every backend; Keras' own L1 pushes zeros away on JAX.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: any, also a scalar.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.L1(0.5)([3.0, -1.0, 0.0]))
        2.0

    Raises:
        ValueError: if the strength is negative or not finite.

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.
    """

    elastic = (1.0, 0.0)

    def entrywise(self, x: Tensor) -> Tensor:
        """`|x|`."""
        return absolute(x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The soft threshold."""
        return soft_threshold(x, t)


@register(string_name=False)  # "l2" in a slot is Keras' own.
class L2(Separable):
    """The sum of squares, as in Keras, without a half: `Σx²`.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: any, also a scalar.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.L2(0.5)([3.0, -1.0]))
        5.0

    Raises:
        ValueError: if the strength is negative or not finite.

    Source: Hoerl and Kennard, "Ridge Regression", 1970.
    """

    elastic = (0.0, 2.0)

    def entrywise(self, x: Tensor) -> Tensor:
        """`x²`."""
        return ops.square(x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """`x / (1 + 2t)`."""
        return x / (1.0 + 2.0 * t)


@register
class ElasticNet(Separable):
    """L1 and half L2 in one proportion: `Σ l1_ratio·|x| + ½(1 − l1_ratio)·x²`.

    The form of scikit-learn's ElasticNet.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        l1_ratio: The share of L1, in [0, 1]: 1 is L1, 0 is half of L2. Default 0.5.

    Shapes: any, also a scalar.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.ElasticNet(1.0, l1_ratio=0.5)([2.0, -2.0]))
        4.0

    Raises:
        ValueError: if `l1_ratio` lies outside [0, 1].

    Source: Zou and Hastie, "Regularization and Variable Selection via the Elastic
    Net", 2005.
    """

    def __init__(self, strength: StrengthLike = 0.01, l1_ratio: float = 0.5) -> None:
        super().__init__(strength)
        self.l1_ratio = checks.number("l1_ratio", l1_ratio, 0.0, 1.0)

    @property
    def elastic(self) -> tuple[float, float]:  # type: ignore[override]
        """`l1_ratio` and the rest."""
        return self.l1_ratio, 1.0 - self.l1_ratio

    def entrywise(self, x: Tensor) -> Tensor:
        """`l1_ratio·|x| + ½(1 − l1_ratio)·x²`."""
        return self._mixed(lambda part: part, x)

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ φ(x)`, by two sums: XLA takes longer over one of both."""
        fuses = pays_to_fuse_sum(x)
        return super().compute_value(x) if fuses else self._mixed(ops.sum, x)

    def _mixed(self, of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What `of` makes of |x| and x², each where it counts: 0·∞ would be NaN."""
        line, parabola = self.l1_ratio, 0.5 * (1.0 - self.l1_ratio)
        if parabola == 0.0:
            return line * of(absolute(x))
        square = parabola * of(ops.square(x))
        return square if line == 0.0 else line * of(absolute(x)) + square

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The soft threshold, then the shrinkage."""
        return soft_threshold(x, t * self.l1_ratio) / (1.0 + t * (1.0 - self.l1_ratio))

    @classmethod
    def examples(cls) -> list[Self]:
        """Both ends and the middle."""
        return [cls(0.5), cls(0.5, l1_ratio=0.0), cls(0.5, l1_ratio=1.0)]


@register
class HuberL1(Separable):
    """L1 made smooth around 0: `Σ x²/(2·width)` to |x| = width, then `|x| − width/2`.

    The Moreau envelope of L1: differentiable, and never an exact zero by itself.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        width: Where the parabola becomes a line, above 0. Default 1.0.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.HuberL1(1.0, width=1.0)(np.array([3.0, -1.0])))
        3.0

    Raises:
        ValueError: if `width` is not above 0.

    Source: Huber, "Robust Estimation of a Location Parameter", 1964.
    """

    joint = "entries"

    def __init__(self, strength: StrengthLike = 0.01, width: float = 1.0) -> None:
        super().__init__(strength)
        self.width = checks.positive("width", width)

    def entrywise(self, x: Tensor) -> Tensor:
        """`x²/(2·width)` to |x| = width, then `|x| − width/2`."""
        inner = ops.clip(x, -self.width, self.width)
        parabola = 0.5 / self.width * ops.square(inner)
        return parabola + (absolute(x) - absolute(inner))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The shrinkage inside, the soft threshold outside."""
        inner = x * (self.width / (self.width + t))
        return ops.where(ops.absolute(x) > self.width + t, soft_threshold(x, t), inner)

    @classmethod
    def examples(cls) -> list[Self]:
        """A wide parabola and a narrow one."""
        return [cls(0.5), cls(0.5, width=0.1)]


@register
class NonNegative(Separable):
    """A hinge on negative entries: `Σ max(−x, 0)`.

    It draws entries above or on 0, and charges nothing there. The slope at 0 is 0.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.NonNegative(0.5)(np.array([3.0, -1.0, 0.0])))
        0.5

    Raises:
        ValueError: if the strength is negative or not finite.

    Source: the exact penalty function of the constraint x ≥ 0; Nocedal and Wright,
    "Numerical Optimization", 2006, section 17.2.
    """

    even = False
    joint = "cone"

    def entrywise(self, x: Tensor) -> Tensor:
        """`max(−x, 0)`."""
        return positive_part(-x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """Negative entries move up by t, but not above 0."""
        return ops.where(x < 0, ops.minimum(x + t, 0.0), x)
