"""What multiplies a penalty: a constant, a schedule, or what training finds."""

from __future__ import annotations

from typing import Any, TypeAlias

from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_penalties import checks
from keras_penalties.strengths.learned import Learned
from keras_penalties.strengths.schedules import (
    CosineRamp,
    Cyclical,
    Lazy,
    LinearRamp,
    Ramp,
)
from keras_penalties.strengths.target import Target
from keras_penalties.typing import Tensor

__all__ = [
    "CosineRamp",
    "Cyclical",
    "Lazy",
    "Learned",
    "LinearRamp",
    "Ramp",
    "Strength",
    "Target",
]

Strength: TypeAlias = Any
"""A float, 0 or more, a `LearningRateSchedule`, for which Keras has no type, a
`Target`, or, of a loss in `AddLoss`, a `Learned`."""


def as_strength(value: Any) -> Strength:
    """A penalty's strength: a finite number, 0 or more, a schedule or a target.

    Raises:
        ValueError: if it is none of them.
    """
    if isinstance(value, LearningRateSchedule | Target):
        return value
    if isinstance(value, Learned):
        checks.refuse(
            "strength",
            "a number, a schedule or a `Target`: with a learned one a penalty would "
            "fall to 0 while its strength grows without end. `Learned` balances the "
            "losses of `keras_penalties.layers.AddLoss`",
            value,
        )
    return checks.non_negative("strength", value)


def initial(strength: Strength) -> float:
    """What a host's weight starts at: the constant, or a target's first multiplier."""
    if isinstance(strength, Target):
        return strength.initial
    return strength if isinstance(strength, float) else 0.0


def replaced(strengths: Any, index: int, strength: Tensor) -> Tensor:
    """A host's strengths with another one at an index."""
    entry = ops.reshape(strength, (1,))
    return ops.slice_update(ops.copy(strengths), (index,), entry)
