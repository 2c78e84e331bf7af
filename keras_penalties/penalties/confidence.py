"""Penalties on how sure predicted probabilities are."""

from __future__ import annotations

import math
from typing import Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.masks import real_rows
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


class _OfProbabilities(Penalty):
    """A penalty on the classes' probabilities, or on the logits that make them."""

    even = False
    rank = 1

    def __init__(
        self, strength: StrengthLike = 0.01, from_logits: bool = False
    ) -> None:
        super().__init__(strength)
        self.from_logits: bool = checks.instance("from_logits", from_logits, bool)

    def rows(self, x: Tensor) -> Tensor:
        """The value of each row along the last axis, which stays as an axis of 1."""
        raise NotImplementedError

    def compute_value(self, x: Tensor) -> Tensor:
        """The sum over rows."""
        return ops.sum(self.rows(x))

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The sum over the real rows."""
        rows = self.rows(x)
        return ops.sum(ops.where(real_rows(mask, x) > 0, rows, ops.zeros_like(rows)))

    @property
    def domain(self) -> tuple[float, float]:  # type: ignore[override]
        """Probabilities, or any logits."""
        return (-math.inf, math.inf) if self.from_logits else (0.0, 1.0)

    @classmethod
    def examples(cls) -> list[Self]:
        """On probabilities, and on logits."""
        return [cls(0.5), cls(0.5, from_logits=True)]


@register
class Entropy(_OfProbabilities):
    """The entropy of predictions, which it makes surer: `−Σ p·log p`.

    Summed over samples; a layer divides by the batch. Its opposite is `Confidence`.
    Below 1e-7 the logarithm stays as it is there, so that the slope at 0 is finite.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        from_logits: Whether x are logits, of which p is the softmax. Default False.

    Shapes: (batch, ..., classes); on the last axis probabilities that sum to 1.

    Example:
        >>> import keras_penalties as kp
        >>> entropy = kp.penalties.Entropy(1.0)
        >>> round(float(entropy([[0.5, 0.5], [1.0, 0.0]])), 4)  # log 2
        0.6931

    Raises:
        ValueError: if the strength is negative, or `from_logits` is not a bool.

    Source: Grandvalet and Bengio, "Semi-supervised Learning by Entropy Minimization",
    2005.
    """

    convex = False

    def rows(self, x: Tensor) -> Tensor:
        """`−Σ p·log p` of each row."""
        return -_sum_p_log_p(x, self.from_logits)


@register
class Confidence(_OfProbabilities):
    """How sure predictions are, which it makes less: `Σ (log K + Σ p·log p)`.

    K is the number of classes: this is `Σ KL(p ‖ uniform)`, and the source's −H(p) plus
    a constant that makes 0 the least. Summed over samples; a layer divides by the
    batch. Below 1e-7 the logarithm stays as it is there, so that the slope at 0 is
    finite.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        from_logits: Whether x are logits, of which p is the softmax. Default False.

    Shapes: (batch, ..., classes); on the last axis probabilities that sum to 1.

    Example:
        >>> import keras_penalties as kp
        >>> sure = kp.penalties.Confidence(1.0)
        >>> round(float(sure([[0.5, 0.5], [1.0, 0.0]])), 4)  # log 2
        0.6931

    Raises:
        ValueError: if the strength is negative, or `from_logits` is not a bool.

    Source: Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output
    Distributions", 2017.
    """

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """In the probabilities."""
        return not self.from_logits

    def rows(self, x: Tensor) -> Tensor:
        """`log K + Σ p·log p` of each row."""
        return math.log(x.shape[-1]) + _sum_p_log_p(x, self.from_logits)


def _sum_p_log_p(x: Tensor, from_logits: bool) -> Tensor:
    """`Σ p·log p` of each row, with p·log p = 0 at 0."""
    if from_logits:
        # Beyond 1e30 a difference could be infinite, and 0 times that is NaN.
        log_p = ops.log_softmax(ops.clip(x, -1e30, 1e30), axis=-1)
        return ops.sum(ops.exp(log_p) * log_p, axis=-1, keepdims=True)
    log_p = ops.log(ops.maximum(x, keras.config.epsilon()))
    return ops.sum(x * log_p, axis=-1, keepdims=True)
