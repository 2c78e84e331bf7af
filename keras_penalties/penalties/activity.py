"""Penalties on what a layer gives out, statistics of a batch among them."""

from __future__ import annotations

from typing import Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import Tensor
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register
from keras_penalties.strengths import Strength


@register
class KLSparsity(Penalty):
    """Draws each unit's mean activation to a small rate: `Σ_units KL(rate ‖ mean)`.

    `KL(ρ‖q) = ρ·log(ρ/q) + (1 − ρ)·log((1 − ρ)/(1 − q))`, q the mean over all axes but
    the last. A statistic of the batch: never divided by its size, and the same for a
    batch and for the batch repeated. Nearer than 1e-7 to 0 or 1 the formula goes on
    along its tangent, so that a dead unit still has a finite gradient.

    Args:
        strength: The multiplier β, 0 or more. Default 0.01. Beside an error that is a
            *sum* over m samples, β must be m times what it is beside their mean.
        rate: The wanted mean activation ρ, in (0, 1). Default 0.1.

    Input: activations in (0, 1), such as a sigmoid's, of shape (batch, ..., units).

    Example:
        >>> import keras_penalties as kp
        >>> kl = kp.penalties.KLSparsity(1.0, rate=0.1)
        >>> round(float(kl([[0.1, 0.4], [0.1, 0.6]])), 4)
        0.3681

    Raises:
        ValueError: if `rate` is not strictly between 0 and 1.

    Source: Ng, "Sparse Autoencoder", CS294A lecture notes, 2011.
    """

    domain = (0.0, 1.0)
    even = False
    rank = 1
    statistic = "mean"

    def __init__(self, strength: Strength = 0.01, rate: float = 0.1) -> None:
        super().__init__(strength)
        self.rate = checks.fraction("rate", rate)

    def value(self, x: Tensor) -> Tensor:
        """`Σ_units KL(rate ‖ mean activation)`."""
        mean = ops.mean(x, axis=tuple(range(len(x.shape) - 1)))
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
