"""`HoldZeros`: no zero is lost, and what is not zero takes the usual steps."""

from __future__ import annotations

import copy
import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops, optimizers
from strategies import tensors
from virtual_devices import EIGHT_CPUS, NET, TWO_CPUS, grid

from keras_penalties.optimizers import HoldZeros, Penalizing, Proximal

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = (X @ np.linspace(-1, 1, 12).reshape(6, 2)).astype("float32")
DATA = {"batch_size": 8, "shuffle": False, "verbose": 0}
INNER = {
    "sgd": lambda: optimizers.SGD(
        0.05, momentum=0.9, nesterov=True, global_clipnorm=0.5
    ),
    "adam": lambda: optimizers.Adam(
        0.05, amsgrad=True, use_ema=True, weight_decay=0.01
    ),
    "lion": lambda: optimizers.Lion(0.01, gradient_accumulation_steps=2),
    "adafactor": lambda: optimizers.Adafactor(0.05),
    "proximal": lambda: Proximal(optimizers.Adam(0.05), {"first/kernel": "l1(0.05)"}),
    "penalizing": lambda: Penalizing(optimizers.RMSprop(0.01), {"kernel": "l2(0.1)"}),
}
if hasattr(optimizers, "Muon"):
    INNER["muon"] = lambda: optimizers.Muon(0.01)


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def pruned(optimizer, **arguments):
    """A small model, half of whose kernels are zero."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(5, activation="tanh", name="first"),
        keras.layers.Dense(2, name="second"),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.kernel.assign(
            numpy(layer.kernel) * (rng.random(layer.kernel.shape) < 0.5)
        )
    model.compile(optimizer, "mse", **arguments)
    return model


def zeros(model):
    return [numpy(w) == 0 for w in model.trainable_weights if w.path.endswith("kernel")]


SLOW = {"lion", "adafactor", "penalizing"}
INNERS = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in INNER
]


@pytest.mark.parametrize("inner", INNERS)
def test_no_zero_is_lost_and_the_rest_moves(inner):
    model = pruned(HoldZeros(INNER[inner]()))
    before, weights = zeros(model), [numpy(w) for w in model.weights]
    model.fit(X, Y, epochs=2, **DATA)
    for was, now in zip(before, zeros(model), strict=True):
        if inner == "proximal":
            assert np.all(now[was])
        else:
            np.testing.assert_array_equal(now, was)
    for was, weight in zip(weights, model.weights, strict=True):
        assert np.any(numpy(weight) != was)
    if inner == "adam":
        averages = model.optimizer.inner._model_variables_moving_average
        assert np.all(numpy(averages[0])[before[0]] == 0)


@given(
    start=tensors(shapes=((4, 3),)),
    gradients=st.lists(tensors(shapes=((4, 3),)), min_size=1, max_size=3),
)
def test_the_support_never_grows(start, gradients):
    inner = optimizers.SGD(0.1, momentum=0.9)
    optimizer = HoldZeros(Proximal(inner, {"kernel": "l1(0.5)"}))
    weight = keras.Variable(np.where(abs(start) < 1, 0.0, start) + 1e-3, name="kernel")
    optimizer.build([weight])
    weight.assign(numpy(weight) - 1e-3)
    for gradient in gradients:
        was = numpy(weight) == 0
        optimizer.apply([ops.convert_to_tensor(gradient)])
        assert np.all(numpy(weight)[was] == 0)


def test_the_steps_are_those_of_the_live_entries_alone():
    """The norm by which gradients are clipped, too: the entry at zero has no part."""
    one, whole = (
        keras.Variable(np.array(start, "float32"), name="kernel")
        for start in ([2.0], [2.0, 0.0])
    )
    plain, held = (optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0) for _ in range(2))
    held = HoldZeros(held)
    for step in range(3):
        plain.apply([ops.convert_to_tensor([3.0 + step])], [one])
        held.apply([ops.convert_to_tensor([3.0 + step, 40.0])], [whole])
    assert numpy(whole).tolist() == [*numpy(one).tolist(), 0.0]
    assert numpy(held.inner.momentums[0])[1] == 0


def test_momentum_from_before_does_not_leak():
    weight = keras.Variable(np.ones(2, "float32"), name="kernel")
    optimizer = HoldZeros(optimizers.SGD(0.1, momentum=0.9))
    optimizer.apply([ops.ones(2)], [weight])
    weight.assign([0.5, 0.0])
    optimizer.apply([ops.ones(2)])
    assert numpy(weight)[1] == 0.0
    assert numpy(weight)[0] != 0.5


def test_a_bias_at_zero_moves_and_an_embedding_holds():
    table, bias = np.array([[1.0, 0.0], [0.0, 2.0]], "float32"), np.zeros(2, "float32")
    embedding = keras.layers.Embedding(2, 2, name="words")
    dense = keras.layers.Dense(2, name="scores")
    model = keras.Sequential(
        [keras.Input((1,)), embedding, keras.layers.Flatten(), dense]
    )
    embedding.embeddings.assign(table)
    model.compile(HoldZeros("adam"), "mse")
    model.fit(np.array([[0], [1]]), np.ones((2, 2)), epochs=2, verbose=0)
    np.testing.assert_array_equal(numpy(embedding.embeddings) == 0, table == 0)
    assert np.all(numpy(embedding.embeddings)[table != 0] != table[table != 0])
    assert np.all(numpy(dense.bias) != bias)


MODES = {
    "jit": {"jit_compile": True},
    "no jit": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "several steps": {"jit_compile": True, "steps_per_execution": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "policy"),
    [
        ("jit", "mixed_bfloat16"),
        ("no jit", "mixed_float16"),
        ("eager", "float32"),
        ("several steps", "mixed_float16"),
    ],
)
def test_every_mode_holds(mode, policy):
    if BACKEND == "torch" and mode == "several steps":
        pytest.skip("Keras on torch takes one step at a time")
    keras.config.set_dtype_policy(policy)
    optimizer = HoldZeros(optimizers.Adam(0.01, gradient_accumulation_steps=2))
    if policy == "mixed_float16":
        optimizer = optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
    model = pruned(optimizer, **MODES[mode])
    before, weight = zeros(model), numpy(model.weights[0])
    model.fit(X, Y, epochs=2, **DATA)
    for was, now in zip(before, zeros(model), strict=True):
        np.testing.assert_array_equal(now, was)
    assert np.any(numpy(model.weights[0]) != weight)


@pytest.mark.slow
def test_it_goes_on_bit_for_bit_in_a_fresh_process(assert_goes_on):
    models = {}
    for name in ("sgd", "adam", "lion", "proximal"):
        inner = INNER[name]()
        if BACKEND == "jax" and name == "adam":
            inner.use_ema = False  # a second `fit` with an average fails, in Keras
        models[name] = pruned(HoldZeros(inner))
    assert_goes_on(models, X, Y, **DATA)


def test_the_zeros_in_the_file_are_held_by_a_new_optimizer(tmp_path):
    model = pruned("sgd")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.compile(HoldZeros("adam"), "mse")
    loaded.fit(X, Y, **DATA)
    for was, now in zip(zeros(model), zeros(loaded), strict=True):
        np.testing.assert_array_equal(now, was)


@pytest.mark.parametrize("inner", INNER)
def test_config_goes_through_json(inner):
    optimizer = HoldZeros(INNER[inner](), "first/kernel", name="tuned")
    config = keras.saving.serialize_keras_object(optimizer)
    assert config["registered_name"] == "keras_penalties>HoldZeros"
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(again) is HoldZeros
    assert (again.weights, again.name) == ("first/kernel", "tuned")
    same = keras.saving.serialize_keras_object(again)
    assert json.dumps(same, sort_keys=True) == json.dumps(config, sort_keys=True)


def test_a_deep_copy_holds_by_itself():
    model = pruned(HoldZeros(Proximal("sgd", {"kernel": "l1(0.1)"})))
    other = copy.deepcopy(model.optimizer)
    weight = keras.Variable(np.array([1.0, 0.0], "float32"), name="kernel")
    other.apply([ops.ones(2)], [weight])
    np.testing.assert_allclose(numpy(weight), [0.989, 0.0], rtol=1e-6)


def test_a_whole_weight_of_zeros_is_warned_of():
    weight = keras.Variable(np.zeros((2, 2), "float32"), name="kernel")
    with pytest.warns(UserWarning, match=f"'{weight.path}' is all zeros"):
        HoldZeros("sgd").build([weight])


def test_what_cannot_be_held_is_refused():
    weight = keras.Variable(np.ones(2, "float32"), name="bias")
    with pytest.raises(ValueError, match=r"`weights`.*bias.*Received"):
        HoldZeros("sgd").build([weight])
    with pytest.raises(ValueError, match=r"`weights`.*regular expression"):
        HoldZeros("sgd", "(")
    with pytest.raises(ValueError, match=r"outside: LossScaleOptimizer\(HoldZeros"):
        HoldZeros(optimizers.LossScaleOptimizer(optimizers.SGD()))
    with pytest.raises(ValueError, match=r"outside: HoldZeros\(Proximal"):
        Proximal(HoldZeros("sgd"), {"kernel": "l1(0.1)"})
    shared = optimizers.SGD()
    HoldZeros(shared)
    for again in (HoldZeros, lambda one: Proximal(one, {"kernel": "l1(0.1)"})):
        with pytest.raises(ValueError, match="already the inner optimizer"):
            again(shared)


TRAINING = (
    NET
    + """
def trained(inner):
    x, y, model = start()
    for w in model.trainable_weights:
        w.assign(w * (np.abs(keras.ops.convert_to_numpy(w)) > 0.2))
    model.compile(kp.optimizers.HoldZeros(inner), "mse")
    before = [keras.ops.convert_to_numpy(w) == 0 for w in model.weights]
    model.fit(x, y, epochs=4, batch_size=16, shuffle=False, verbose=0)
    after = [keras.ops.convert_to_numpy(w) for w in model.weights]
    for was, now in list(zip(before, after))[::2]:
        assert np.all(now[was] == 0)
    return after

def compare(one, many):
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

def inners():
    yield keras.optimizers.Adam(0.02, weight_decay=0.1)
    yield kp.optimizers.Penalizing("sgd", {"first/kernel": "l2(0.1)"})
    yield kp.optimizers.Proximal("adam", {"first/kernel": "l1(0.1)"})
"""
)
MIRRORED = (
    TWO_CPUS
    + TRAINING
    + """
for n, inner in enumerate(inners()):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    single = trained(inner)
    with strategy.scope():
        compare(single, trained(list(inners())[n]))
"""
)
SHARDED = (
    TRAINING
    + grid({"first/kernel": (None, "model")})
    + """
for n, inner in enumerate(inners()):
    single = trained(inner)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"))
    compare(single, trained(list(inners())[n]))
    keras.distribution.set_distribution(None)
"""
)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras on torch has no such devices")
def test_many_devices_hold_what_one_holds(fresh_process):
    if BACKEND == "tensorflow":
        fresh_process(MIRRORED)
    else:
        fresh_process(SHARDED, XLA_FLAGS=EIGHT_CPUS)
