"""The laws over every registered class, so over a new file of the package too."""

import pytest
from laws import (
    CLASS_LAWS,
    LAYER_LAWS,
    LOSS_LAWS,
    METRIC_LAWS,
    PENALTY_LAWS,
    STRENGTH_LAWS,
    cases,
    pairs,
)
from laws.book import examples_of

import keras_penalties as kp
from keras_penalties.registry import registered

STRENGTHS = [e for e in registered() if e.obj in vars(kp.strengths).values()]
CLASSES = [
    *(
        e
        for k in ("penalty", "loss", "layer", "metric")
        for e in registered(k, "keras_penalties")
    ),
    *STRENGTHS,
]


@pytest.mark.parametrize(("law", "make"), pairs(PENALTY_LAWS, cases("penalty")))
def test_penalty(law, make):
    law(make())


@pytest.mark.parametrize(("law", "make"), pairs(LOSS_LAWS, cases("loss")))
def test_loss(law, make):
    law(make())


@pytest.mark.parametrize(("law", "make"), pairs(LAYER_LAWS, cases("layer")))
def test_layer(law, make):
    law(make())


@pytest.mark.parametrize(("law", "make"), pairs(METRIC_LAWS, cases("metric")))
def test_metric(law, make):
    law(make())


@pytest.mark.parametrize(
    ("law", "make"),
    pairs(
        STRENGTH_LAWS, [case for e in STRENGTHS for case in examples_of(e.name, e.obj)]
    ),
)
def test_strength(law, make):
    law(make())


@pytest.mark.parametrize(
    ("law", "make"), pairs(CLASS_LAWS, [(e.name, lambda e=e: e.obj) for e in CLASSES])
)
def test_class(law, make):
    law(make())


@pytest.mark.parametrize("entry", CLASSES, ids=lambda entry: entry.name)
def test_every_class_has_examples(entry):
    assert {type(example) for example in entry.obj.examples()} == {entry.obj}
