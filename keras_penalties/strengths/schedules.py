"""Schedules that Keras lacks: ramps that hold, and cycles."""

from __future__ import annotations

import math
from typing import Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_penalties import checks, config
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


class Ramp(config.FromSignature, LearningRateSchedule):
    """A schedule from one strength to another, which it then holds.

    A subclass writes `shape`. It is also a learning rate for any Keras optimizer.
    """

    def __init__(self, start: float, end: float, steps: int, begin: int = 0) -> None:
        self.start = checks.non_negative("start", start)
        self.end = checks.non_negative("end", end)
        self.steps = checks.integer("steps", steps)
        self.begin = checks.integer("begin", begin, 0)

    def shape(self, progress: Tensor) -> Tensor:
        """From 0 to 1 as the progress goes from 0 to 1."""
        raise NotImplementedError

    def __call__(self, step: Tensor) -> Tensor:
        """The strength at a step."""
        # Count in integers: above 2²⁴ float32 can't represent single steps.
        done = ops.clip(ops.subtract(step, self.begin), 0, self.steps)
        progress = ops.cast(done, keras.config.floatx()) / self.steps
        return self.start + (self.end - self.start) * self.shape(progress)

    @classmethod
    def examples(cls) -> list[Self]:
        """One up, and one down that begins late."""
        return [cls(0.0, 1.0, 10), cls(2.0, 0.5, 4, begin=3)]


@register
class LinearRamp(Ramp):
    """Goes evenly from one strength to another, and holds it.

    `start + (end − start)·p`, where `p = clip((step − begin) / steps, 0, 1)`.

    Args:
        start: The strength up to step `begin`, 0 or more.
        end: The strength from step `begin + steps` on, 0 or more.
        steps: How many steps it takes, 1 or more.
        begin: The step at which it sets out, 0 or more. Default 0.

    Example:
        >>> import keras_penalties as kp
        >>> ramp = kp.strengths.LinearRamp(0.0, 3.0, steps=100, begin=10)
        >>> [float(ramp(step)) for step in (0, 10, 60, 110, 500)]
        [0.0, 0.0, 1.5, 3.0, 3.0]

    Raises:
        ValueError: if a strength is negative, or a count is no whole number in range.
    """

    def shape(self, progress: Tensor) -> Tensor:
        """`p`."""
        return progress


@register
class CosineRamp(Ramp):
    """Goes from one strength to another, slowly at both ends, and holds it.

    `start + (end − start)·(1 − cos(π·p)) / 2`, where
    `p = clip((step − begin) / steps, 0, 1)`.

    Args:
        start: The strength up to step `begin`, 0 or more.
        end: The strength from step `begin + steps` on, 0 or more.
        steps: How many steps it takes, 1 or more.
        begin: The step at which it sets out, 0 or more. Default 0.

    Example:
        >>> import keras_penalties as kp
        >>> ramp = kp.strengths.CosineRamp(0.0, 1.0, steps=100)
        >>> [round(float(ramp(step)), 3) for step in (0, 25, 50, 100, 500)]
        [0.0, 0.146, 0.5, 1.0, 1.0]

    Raises:
        ValueError: if a strength is negative, or a count is no whole number in range.
    """

    def shape(self, progress: Tensor) -> Tensor:
        """`(1 − cos(π·p)) / 2`."""
        return 0.5 * (1.0 - ops.cos(math.pi * progress))


@register
class Cyclical(config.FromSignature, LearningRateSchedule):
    """Ramps up and holds, again and again, which keeps a KL term from vanishing.

    `start + (end − start)·min(τ / ratio, 1)`, where `τ = (step mod period) / period`.

    Args:
        start: The strength at the beginning of each cycle, 0 or more.
        end: The strength that each cycle ramps up to and holds, 0 or more.
        period: The steps of one cycle, 1 or more.
        ratio: The share of the cycle that the ramp takes, in (0, 1]. Default 0.5.

    Example:
        >>> import keras_penalties as kp
        >>> cycles = kp.strengths.Cyclical(0.0, 1.0, period=8)
        >>> [float(cycles(step)) for step in (0, 1, 4, 7, 8, 9)]
        [0.0, 0.25, 1.0, 1.0, 0.0, 0.25]

    Raises:
        ValueError: if an argument is out of range.

    Source: Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL
    Vanishing", 2019.
    """

    def __init__(
        self, start: float, end: float, period: int, ratio: float = 0.5
    ) -> None:
        self.start = checks.non_negative("start", start)
        self.end = checks.non_negative("end", end)
        self.period = checks.integer("period", period)
        self.ratio = checks.number("ratio", ratio, 0.0, 1.0, open_low=True)

    def __call__(self, step: Tensor) -> Tensor:
        """The strength at a step."""
        done = ops.cast(ops.mod(step, self.period), keras.config.floatx())
        progress = ops.clip(done / (self.period * self.ratio), 0.0, 1.0)
        return self.start + (self.end - self.start) * progress

    @classmethod
    def examples(cls) -> list[Self]:
        """The usual half, and a saw."""
        return [cls(0.0, 1.0, 8), cls(1.0, 3.0, 5, ratio=1.0)]
