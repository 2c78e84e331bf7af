"""Every proximal map in the package, under an adaptive optimizer; and targets."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from descend import descend
from keras import ops

import keras_penalties as kp
from keras_penalties.optimizers import Proximal
from keras_penalties.registry import registered

CASES = [
    pytest.param(penalty, id=f"{entry.name}-{i}")
    for entry in registered("penalty", "keras_penalties")
    for i, penalty in enumerate(entry.obj.examples())
    if penalty.has_prox and not penalty.statistic
]


class Flat(keras.layers.Layer):
    """One weight of any shape, read as a vector."""

    def __init__(self, shape):
        super().__init__()
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")

    def call(self, x):
        return ops.matmul(x, ops.reshape(self.kernel, (-1, 1)))


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("penalty", CASES)
def test_adam_rests_where_a_plain_proximal_step_does(penalty):
    """Whatever the metric, so the point of rest is that of loss + penalty."""
    shape = penalty.example_shapes()[0]
    rng, size = np.random.default_rng(2), int(np.prod(shape))
    x = rng.normal(size=(40, size)).astype("float32")
    y = (x @ rng.normal(size=(size, 1))).astype("float32")
    layer = Flat(shape)
    model = keras.Sequential([keras.Input((size,)), layer])
    rate = keras.optimizers.schedules.CosineDecay(0.05, 3000, alpha=0.1)
    sparse = Proximal(keras.optimizers.Adam(rate), {"kernel": penalty})
    model.compile(sparse, kp.losses.HalfSumSquaredError())
    descend(model, x, y, 3000)
    found = numpy(layer.kernel)
    step = 0.05
    slope = x.T @ (x @ found.reshape(-1, 1) - y) / len(x)
    moved = found - step * slope.reshape(shape)
    parts = [
        ops.convert_to_tensor(step * p.strength, "float32") for p in penalty.parts()
    ]
    again = penalty.prox_parts(ops.convert_to_tensor(moved, "float32"), parts)
    np.testing.assert_allclose(numpy(again), found, atol=2e-5)


@pytest.mark.parametrize("inner", ["adam", "rmsprop", "nadam"])
@pytest.mark.parametrize("penalty", ["mcp(0.1, width=0.4)", "scad(0.1, knee=0.1)"])
def test_a_weight_at_rest_on_a_flat_penalty_stays(inner, penalty):
    """Without a gradient D is as large as 1/ε lets it be, and the full map would jump.

    A hard threshold at √(t·width) of 10 and more would set the weight to zero.
    """
    optimizer = Proximal(inner, {"kernel": penalty})
    optimizer.learning_rate = 0.1
    variable = keras.Variable(np.array([0.5], "float32"), name="kernel")
    optimizer.build([variable])
    for _ in range(3):
        optimizer.apply([ops.zeros(1)])
    np.testing.assert_allclose(numpy(variable), 0.5, rtol=1e-6)


def test_a_target_is_reached_by_exact_zeros():
    """A quarter of the entries may be nonzero, and of 32 just 8 are."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 32)).astype("float32")
    y = (x @ np.linspace(0.1, 2.0, 32)[:, None]).astype("float32")
    layer = Flat((32,))
    model = keras.Sequential([keras.Input((32,)), layer])
    target = kp.Target(0.25, of="density", rate=0.002)
    sparse = Proximal(keras.optimizers.Adam(0.02), {"kernel": kp.penalties.L1(target)})
    model.compile(sparse, kp.losses.HalfSumSquaredError())
    descend(model, x, y, 4000)
    assert np.count_nonzero(numpy(layer.kernel)) == 8
    assert numpy(sparse.state.vector)[0] > 0


def test_a_multiplier_moves_on_real_steps_only():
    target = kp.Target(0.0, rate=0.5, damping=0.0)
    inner = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
    optimizer = Proximal(inner, {"kernel": kp.penalties.L1(target)})
    variable = keras.Variable(np.ones(2, "float32"), name="kernel")
    optimizer.build([variable])
    seen = []
    for _ in range(4):
        optimizer.apply([ops.zeros(2)])
        seen.append(float(numpy(optimizer.state.vector)[0]))
    assert seen == [0.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize("kind", [">=", "=="])
def test_a_target_that_may_be_negative_is_refused(kind):
    target = kp.Target(1.0, kind=kind)
    with pytest.raises(ValueError, match=r"`penalties`.*'<='"):
        Proximal("sgd", {"kernel": kp.penalties.L1(target)})
