"""The metric is the step: how far each optimizer really moves per unit of gradient."""

from __future__ import annotations

import functools

import keras
import pytest
from keras import ops
from laws import PRECONDITIONER_LAWS, pairs
from laws.preconditioners import Stepping

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
    "amsgrad without momentum": lambda r: OPTIMIZERS.Adam(
        r, beta_1=0.0, epsilon=SMALL, amsgrad=True
    ),
    "adam without momentum": lambda r: OPTIMIZERS.Adam(r, beta_1=0.0, epsilon=SMALL),
    "nadam without momentum": lambda r: OPTIMIZERS.Nadam(r, beta_1=0.0, epsilon=SMALL),
    "adamax without momentum": lambda r: OPTIMIZERS.Adamax(
        r, beta_1=0.0, epsilon=SMALL
    ),
    "adamw": lambda r: OPTIMIZERS.AdamW(r, epsilon=SMALL, weight_decay=0.0),
    "nadam": lambda r: OPTIMIZERS.Nadam(r, epsilon=SMALL),
    "adamax": lambda r: OPTIMIZERS.Adamax(r, epsilon=SMALL),
    "rmsprop": lambda r: OPTIMIZERS.RMSprop(r, epsilon=SMALL),
    "rmsprop momentum": lambda r: OPTIMIZERS.RMSprop(r, momentum=0.8, epsilon=SMALL),
    "rmsprop centered": lambda r: OPTIMIZERS.RMSprop(r, centered=True, epsilon=SMALL),
    "adagrad": lambda r: OPTIMIZERS.Adagrad(r, epsilon=SMALL),
    "adadelta": lambda r: OPTIMIZERS.Adadelta(r, epsilon=SMALL),
}
STEPPINGS = [(name, functools.partial(Stepping, make)) for name, make in CASES.items()]


@pytest.mark.parametrize(("law", "make"), pairs(PRECONDITIONER_LAWS, STEPPINGS))
def test_preconditioner(law, make):
    law(make())


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
