"""What multiplies a penalty: a constant, or a schedule over the training steps."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras

from keras_penalties import checks

Schedule = keras.optimizers.schedules.LearningRateSchedule

Strength: TypeAlias = Any
"""A float, 0 or more, or a `LearningRateSchedule`, for which Keras has no type."""


def as_strength(value: Any) -> Strength:
    """A strength: a finite number, 0 or more, or a schedule.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, Schedule):
        return value
    return checks.non_negative("strength", value)
