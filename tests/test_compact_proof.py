"""Group penalties, Proximal and compact together, on digits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from compact_models import MODELS, accuracy, digits, trained, tuned

import keras_penalties as kp

EPOCHS = 30
# By how much the parameters and the FLOPs go down, at least.
FACTORS = {"mlp": (5.0, 5.0), "lenet": (2.5, 1.8), "residual": (2.0, 2.0)}


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("name", MODELS)
def test_smaller_at_the_same_accuracy(name):
    """Penalised, compacted and tuned; against as many epochs without a penalty."""
    train, test = digits()
    plain = tuned(trained(name, train, EPOCHS, strength=0.0), train)
    keras.utils.set_random_seed(0)
    model = trained(name, train, EPOCHS)
    small, found = kp.compact(model), kp.sparsity(model)
    parameters, flops = FACTORS[name]
    assert small.count_params() == found.compact_parameters
    assert model.count_params() > parameters * small.count_params()
    assert found.flops > flops * found.compact_flops
    np.testing.assert_allclose(
        small.predict(test[0], verbose=0),
        model.predict(test[0], verbose=0),
        rtol=1e-4,
        atol=1e-4,  # of logits around 10
    )
    reached, wanted = accuracy(tuned(small, train), test), accuracy(plain, test)
    assert reached >= wanted - 0.01
