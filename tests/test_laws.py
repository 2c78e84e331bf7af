"""The laws over every registered class, so over a new file of the package too."""

import pytest
from laws import LAYER_LAWS, LOSS_LAWS, PENALTY_LAWS, cases, pairs

from keras_penalties.registry import registered


@pytest.mark.parametrize(("law", "penalty"), pairs(PENALTY_LAWS, "penalty"))
def test_penalty(law, penalty):
    law(penalty)


@pytest.mark.parametrize(("law", "loss"), pairs(LOSS_LAWS, "loss"))
def test_loss(law, loss):
    law(loss)


@pytest.mark.parametrize(("law", "layer"), pairs(LAYER_LAWS, "layer"))
def test_layer(law, layer):
    law(layer)


@pytest.mark.parametrize("kind", ["penalty", "loss", "layer"])
def test_every_class_has_examples(kind):
    covered = {type(example) for _, example in cases(kind)}
    assert covered == {entry.obj for entry in registered(kind, "keras_penalties")}
