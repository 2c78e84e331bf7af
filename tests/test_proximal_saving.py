"""A model under `Proximal` is saved, loads elsewhere, and goes on unchanged."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp
from keras_penalties.optimizers import Proximal

P = kp.penalties
ON_JAX = keras.backend.backend() == "jax"
X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = (X @ np.linspace(-1, 1, 12).reshape(6, 2)).astype("float32")
DATA = {"batch_size": 8, "shuffle": False, "verbose": 0}

RATE = keras.optimizers.schedules.CosineDecay(0.05, 40)
INNER = {
    "sgd": lambda: keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True),
    # A second `fit` with an average fails on JAX, in Keras: with every optimizer.
    "adam": lambda: keras.optimizers.Adam(0.05, amsgrad=True, use_ema=not ON_JAX),
    "rmsprop": lambda: keras.optimizers.RMSprop(
        0.01, momentum=0.8, gradient_accumulation_steps=2
    ),
    "adadelta": lambda: keras.optimizers.Adadelta(30.0, weight_decay=0.01),
}
PENALTIES = {
    "first/kernel": P.L1(kp.strengths.LinearRamp(0.0, 0.05, 30))
    + P.Grouped(P.L1(0.02), axis=-1),
    "second/kernel": P.MCP(kp.Target(0.5, of="density", rate=0.01), width=2.0),
    "second/bias": "l2(0.1)",
}


def model(inner):
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(5, activation="tanh", name="first"),
        keras.layers.Dense(2, name="second"),
    ]
    found = keras.Sequential(layers)
    found.compile(Proximal(INNER[inner](), PENALTIES), "mse")
    return found


@pytest.mark.slow_on_tensorflow
def test_it_goes_on_bit_for_bit_in_a_fresh_process(assert_goes_on):
    models = {name: model(name) for name in INNER}
    assert_goes_on(models, X, Y, epochs=3, **DATA)
    for trained in models.values():
        assert any((ops.convert_to_numpy(v) == 0).any() for v in trained.weights)


def test_a_changed_strength_is_saved(tmp_path):
    trained = model("sgd")
    trained.fit(X, Y, **DATA)
    strengths = np.array([0.0, 0.7, 0.0, 0.3], "float32")
    trained.optimizer.state.vector.assign(strengths)
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(loaded.optimizer.state.vector), strengths
    )


@pytest.mark.parametrize("inner", INNER)
def test_config_goes_through_json(inner):
    optimizer = Proximal(INNER[inner](), PENALTIES, name="sparse")
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(copy) is Proximal
    assert copy.penalties == optimizer.penalties
    assert copy.name == "sparse"
    assert copy.inner.get_config() == optimizer.inner.get_config()
    assert type(copy.inner) is type(optimizer.inner)
    again = keras.saving.serialize_keras_object(copy)
    assert json.dumps(again, sort_keys=True) == json.dumps(config, sort_keys=True)


def test_the_inner_class_is_one_that_every_backend_has():
    """Keras saves its private torch class, which other backends can't train."""
    config = Proximal("adam", {"kernel": "l2(0.1)"}).get_config()
    assert config["inner"]["module"] == "keras.optimizers"
    assert config["inner"]["class_name"] == "Adam"


def test_keras_key_and_get():
    config = keras.optimizers.serialize(Proximal("sgd", {"kernel": "l2(0.1)"}))
    assert config["registered_name"] == "keras_penalties>Proximal"
    assert type(keras.optimizers.get(config)) is Proximal
