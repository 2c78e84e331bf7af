"""Laws of the preconditioners: D is how far an optimizer really moves a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties.optimizers.preconditioners import preconditioner_of
from laws.book import PRECONDITIONER_LAWS, law

GRADIENT = np.array([1e-4, 1e-2, -1.0, 30.0], "float32")
SHRINKING = [GRADIENT * factor for factor in (1.0, -0.3, 0.05, 0.01)]
GROWING = SHRINKING[::-1]


@dataclass
class Stepping:
    """A maker of an optimizer, given a learning rate, and what is to describe it."""

    optimizer: Callable[[Any], Any]
    preconditioner: Callable[[Any], Any] = preconditioner_of


def decay() -> Any:
    """A rate that changes with every step."""
    return keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 0.5)


def moved_and_sized(
    stepping: Stepping, gradients: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The last of these steps: how far it moved the weight, and D."""
    optimizer = stepping.optimizer(decay())
    # Far smaller than a step, so that float32 holds the difference.
    variable = keras.Variable(np.zeros(4, "float32"), name="w")
    optimizer.build([variable])
    metric = stepping.preconditioner(optimizer)
    metric.build(variable)
    for gradient in gradients:
        before, rate = metric.before(variable), ops.copy(optimizer.learning_rate)
        count = int(optimizer.iterations)
        variable.assign(np.zeros(4, "float32"))
        optimizer.apply([ops.convert_to_tensor(gradient)])
        optimizer.iterations.assign(count)  # as within the step
        size = metric.step_size(variable, rate, before)
        optimizer.iterations.assign(count + 1)
    return ops.convert_to_numpy(variable), np.broadcast_to(
        ops.convert_to_numpy(size), 4
    )


def averages(stepping: Stepping) -> bool:
    """Whether the last step also holds earlier gradients."""
    optimizer = stepping.optimizer(0.1)
    names = ("momentum", "beta_1")
    return any(getattr(optimizer, name, 0.0) for name in names)


@law(book=PRECONDITIONER_LAWS)
def a_constant_gradient_moves_a_weight_by_the_metric(stepping: Stepping) -> None:
    """However long: the share of the momentum, the bias correction, each epsilon."""
    for steps in (1, 2, 7):
        moved, size = moved_and_sized(stepping, [GRADIENT] * steps)
        np.testing.assert_allclose(moved, -size * GRADIENT, rtol=2e-5)


@law(lambda stepping: not averages(stepping), book=PRECONDITIONER_LAWS)
def the_last_gradient_alone_moves_a_weight_by_the_metric(stepping: Stepping) -> None:
    """Where no momentum holds earlier ones: what D remembers of them is right."""
    for gradients in (SHRINKING, GROWING):
        moved, size = moved_and_sized(stepping, gradients)
        np.testing.assert_allclose(moved, -size * gradients[-1], rtol=2e-5)
