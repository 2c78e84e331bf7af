"""The metric is the step: how far each optimizer really moves per unit of gradient."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_penalties.optimizers.preconditioners import (
    PRECONDITIONERS,
    preconditioner_of,
)

OPTIMIZERS = keras.optimizers
SMALL = 1e-3  # an epsilon that shows where it stands
CASES = {
    "sgd": lambda r: OPTIMIZERS.SGD(r),
    "momentum": lambda r: OPTIMIZERS.SGD(r, momentum=0.8),
    "nesterov": lambda r: OPTIMIZERS.SGD(r, momentum=0.8, nesterov=True),
    "nesterov without momentum": lambda r: OPTIMIZERS.SGD(r, nesterov=True),
    "adam": lambda r: OPTIMIZERS.Adam(r, epsilon=SMALL),
    "amsgrad": lambda r: OPTIMIZERS.Adam(r, epsilon=SMALL, amsgrad=True),
    "adamw": lambda r: OPTIMIZERS.AdamW(r, epsilon=SMALL, weight_decay=0.0),
    "nadam": lambda r: OPTIMIZERS.Nadam(r, epsilon=SMALL),
    "adamax": lambda r: OPTIMIZERS.Adamax(r, epsilon=SMALL),
    "rmsprop": lambda r: OPTIMIZERS.RMSprop(r, epsilon=SMALL),
    "rmsprop momentum": lambda r: OPTIMIZERS.RMSprop(r, momentum=0.8, epsilon=SMALL),
    "rmsprop centered": lambda r: OPTIMIZERS.RMSprop(r, centered=True, epsilon=SMALL),
    "adagrad": lambda r: OPTIMIZERS.Adagrad(r, epsilon=SMALL),
    "adadelta": lambda r: OPTIMIZERS.Adadelta(r, epsilon=SMALL),
}
GRADIENT = np.array([1e-4, 1e-2, -1.0, 30.0], "float32")


def decay():
    """A rate that changes with every step."""
    return keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 0.5)


def moved_and_sized(make, steps):
    """The last of so many equal steps: how far it moved, and the metric's D."""
    optimizer = make(decay())
    # Far smaller than a step, so that float32 holds the difference.
    variable = keras.Variable(np.zeros(4, "float32"), name="w")
    optimizer.build([variable])
    metric = preconditioner_of(optimizer)
    metric.build(variable)
    sizes = []
    for _ in range(steps):
        before, rate = metric.before(variable), ops.copy(optimizer.learning_rate)
        count = int(optimizer.iterations)
        variable.assign(np.zeros(4, "float32"))
        optimizer.apply([ops.convert_to_tensor(GRADIENT)])
        optimizer._iterations.assign(count)  # as within the step
        sizes.append(metric.step_size(variable, rate, before))
        optimizer._iterations.assign(count + 1)
    return ops.convert_to_numpy(variable), np.broadcast_to(
        ops.convert_to_numpy(sizes[-1]), 4
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_constant_gradient_moves_a_weight_by_the_metric(name, steps):
    """However long: the momentum's share, the bias correction, each epsilon."""
    moved, size = moved_and_sized(CASES[name], steps)
    np.testing.assert_allclose(moved, -size * GRADIENT, rtol=2e-5)


def test_every_metric_is_tested():
    found = {type(preconditioner_of(make(0.1))) for make in CASES.values()}
    assert found == set(PRECONDITIONERS)


class OwnStep(keras.optimizers.SGD):
    """A subclass that steps in its own way."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, ops.sign(gradient) * learning_rate)


class OwnName(keras.optimizers.Adam):
    """A subclass that steps as its parent does."""


NO_METRIC = {
    "Lion": "no threshold",
    "Muon": "no diagonal metric",
    "Ftrl": "l1_regularization_strength",
    "Lamb": "not known",
    "Adafactor": "not known",
    "LossScaleOptimizer": "outside",
    "MultiOptimizer": "each optimizer inside",
}


@pytest.mark.parametrize("name", NO_METRIC)
def test_an_optimizer_without_a_metric_is_refused(name):
    args = {
        "LossScaleOptimizer": [keras.optimizers.SGD()],
        "MultiOptimizer": [lambda variable: keras.optimizers.SGD()],
    }
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"Keras {keras.__version__} has no {name}")
    optimizer = getattr(keras.optimizers, name)(*args.get(name, []))
    with pytest.raises(ValueError, match=rf"`inner`.*{NO_METRIC[name]}"):
        preconditioner_of(optimizer)


def test_an_own_step_is_refused_and_an_own_name_is_not():
    assert preconditioner_of(OwnName()).kinds
    with pytest.raises(ValueError, match="not known"):
        preconditioner_of(OwnStep())
