"""Penalties that are a sum over single entries."""

from __future__ import annotations

import math
from typing import Self

from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import Tensor, absolute, soft_threshold
from keras_penalties.penalties.base import Separable
from keras_penalties.registry import register
from keras_penalties.strengths import Strength


@register(string_name=False)  # "l1" in a slot is Keras' own.
class L1(Separable):
    """The sum of absolute values, which favours exact zeros: `Σ|x|`.

    The slope at 0 is 0 on every backend; Keras' own L1 pushes zeros away on JAX.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.L1(0.5)([3.0, -1.0, 0.0]))
        2.0

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.
    """

    def entrywise(self, x: Tensor) -> Tensor:
        """`|x|`."""
        return absolute(x)

    def prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The soft threshold."""
        return soft_threshold(x, t)


@register(string_name=False)  # "l2" in a slot is Keras' own.
class L2(Separable):
    """The sum of squares, as in Keras, without a half: `Σx²`.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.L2(0.5)([3.0, -1.0]))
        5.0

    Source: Hoerl and Kennard, "Ridge Regression", 1970.
    """

    def entrywise(self, x: Tensor) -> Tensor:
        """`x²`."""
        return ops.square(x)

    def prox(self, x: Tensor, t: Tensor) -> Tensor:
        """`x / (1 + 2t)`."""
        return x / (1.0 + 2.0 * t)


@register
class ElasticNet(Separable):
    """L1 and half L2 in one proportion: `Σ l1_ratio·|x| + ½(1 − l1_ratio)·x²`.

    The form of scikit-learn's ElasticNet.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        l1_ratio: The share of L1, in [0, 1]: 1 is L1, 0 is half of L2. Default 0.5.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.ElasticNet(1.0, l1_ratio=0.5)([2.0, -2.0]))
        4.0

    Raises:
        ValueError: if `l1_ratio` lies outside [0, 1].

    Source: Zou and Hastie, "Regularization and Variable Selection via the Elastic
    Net", 2005.
    """

    def __init__(self, strength: Strength = 0.01, l1_ratio: float = 0.5) -> None:
        super().__init__(strength)
        self.l1_ratio = checks.number("l1_ratio", l1_ratio, 0.0, 1.0)

    def entrywise(self, x: Tensor) -> Tensor:
        """`l1_ratio·|x| + ½(1 − l1_ratio)·x²`."""
        scaled = math.sqrt(0.5 * (1.0 - self.l1_ratio)) * x  # 0 · ∞ would be NaN
        return self.l1_ratio * absolute(x) + ops.square(scaled)

    def prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The soft threshold, then the shrinkage."""
        return soft_threshold(x, t * self.l1_ratio) / (1.0 + t * (1.0 - self.l1_ratio))

    @classmethod
    def examples(cls) -> list[Self]:
        """Both ends and the middle."""
        return [cls(0.5), cls(0.5, l1_ratio=0.0), cls(0.5, l1_ratio=1.0)]
