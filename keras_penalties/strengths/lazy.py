"""A strength that acts at every k-th step only, to save time."""

from __future__ import annotations

from typing import Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.registry import register
from keras_penalties.strengths.base import Host, Strength
from keras_penalties.typing import Tensor


@register
class Lazy(Strength):
    """Applies a costly penalty at every k-th step only, k times as strong.

    `strength·every` at the steps 0, every, 2·every, …, and 0 between. The penalty is
    computed only at these steps. Over the steps that is `strength`: the gradient is an
    unbiased estimate, at a k-th of the cost, and noisier. An evaluation has the plain
    `strength`. For `Penalized` and `ActivityPenalty`: in the layers that penalise
    derivatives, and in `AddLoss`, the strength is the same, but what is penalised is
    computed at each step all the same. `Proximal` refuses it.

    Args:
        strength: The mean over the steps, 0 or more.
        every: k, 1 or more. Default 16, the source's.

    Example:
        >>> import keras_penalties as kp
        >>> lazy = kp.strengths.Lazy(0.5, every=4)
        >>> [float(lazy(step)) for step in range(6)]
        [2.0, 0.0, 0.0, 0.0, 2.0, 0.0]

    Raises:
        ValueError: if an argument is out of range.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN",
    2020, the lazy regularization.
    """

    skips = True

    def __init__(self, strength: float, every: int = 16) -> None:
        self.strength = checks.non_negative("strength", strength)
        self.every = checks.integer("every", every)

    def __call__(self, step: Tensor) -> Tensor:
        """The strength at a step of training."""
        now = ops.cast(ops.equal(ops.mod(step, self.every), 0), keras.config.floatx())
        return now * (self.strength * self.every)

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """The strength at a step; the mean strength outside training."""
        strength = self(step) if training else self.strength
        return ops.cast(strength, state.dtype)

    def refusal(self, host: Host) -> str | None:
        """Refused by `Proximal`, which applies its map at each step."""
        if host == "proximal":
            return "strengths that act at every step"
        return super().refusal(host)

    @classmethod
    def examples(cls) -> list[Self]:
        """Every other step, and every step."""
        return [cls(0.5, every=2), cls(1.0, every=1)]
