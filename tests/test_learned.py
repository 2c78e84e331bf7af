"""Learned strengths: they move, under every compiler, to where scipy says."""

import json

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops
from scipy.optimize import minimize

import keras_penalties as kp
from keras_penalties.strengths import Learned

RNG = np.random.default_rng(0)
N, WIDTH = 32, 3
X = np.linalg.qr(RNG.normal(size=(N, WIDTH)))[0] * N**0.5  # XᵀX/n = 1
NEAR = X @ [1.0, -2.0, 0.5] + RNG.normal(size=N)
FAR = X @ [1.5, -1.0, 0.0] + 0.7 * RNG.normal(size=N)  # it wants another slope
UNIT = 1e4  # in which the second error is measured: metres, and centimetres
STEPS = 400
JIT = BACKEND != "torch"  # there it would need a C++ compiler


@kp.register(package="tests_learned")
def in_small_units(y_true, y_pred):
    """A squared error whose unit makes it ten thousand times as large."""
    return UNIT * ops.mean(ops.square(y_true - y_pred), axis=-1)


def two_losses(strength, shared=True, **options):
    """One slope, or one for each, for two targets; and the model that predicts."""
    x = keras.Input((WIDTH,), name="x")
    near, far = (keras.Input((1,), name=n) for n in ("near", "far"))
    line = layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="line")
    other = layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="other")
    predictions = [line(x), (line if shared else other)(x)]
    passed = [
        kp.layers.AddLoss("mean_squared_error", strength, name="near_loss")(
            predictions[0], y_true=near
        ),
        kp.layers.AddLoss(in_small_units, strength, name="far_loss")(
            predictions[1], y_true=far
        ),
    ]
    training = keras.Model({"x": x, "near": near, "far": far}, passed)
    training.compile(**options)
    return training, keras.Model(x, predictions)


def batches(steps):
    columns = {"x": X, "near": NEAR[:, None], "far": FAR[:, None]}
    return {name: np.tile(c, (steps, 1)) for name, c in columns.items()}


def trained(model, steps):
    history = model.fit(batches(steps), batch_size=N, shuffle=False, verbose=0)
    return history.history


def strengths(model):
    return np.array([term.strength for term in kp.terms(model)])


def losses_at(slope):
    errors = (X @ slope - NEAR, X @ slope - FAR)
    return np.array([1.0, UNIT]) * [np.mean(e**2) for e in errors]


def slowing():
    """A strength sets out with a slope of 1e4: Adam must soon forget it."""
    rate = kp.strengths.CosineRamp(0.1, 1e-4, STEPS)
    return keras.optimizers.Adam(rate, beta_2=0.9)


@pytest.mark.slow_on_tensorflow
def test_they_go_to_where_scipy_finds_the_minimum():
    """Over the slope and both strengths at once; a fixed sum goes elsewhere."""

    def objective(v):
        w = np.exp(v[WIDTH:])
        return np.sum(w * losses_at(v[:WIDTH]) - 0.5 * np.log(w))

    start = np.array([0.0] * WIDTH + [0.0, -np.log(UNIT)])
    exact = minimize(objective, start, method="BFGS", options={"gtol": 1e-9}).x
    slope, best = exact[:WIDTH], np.exp(exact[WIDTH:])
    np.testing.assert_allclose(best, 1 / (2 * losses_at(slope)), rtol=1e-4)
    slopes = []
    for strength in (Learned(), 1.0):
        model, predicts = two_losses(strength, optimizer=slowing(), jit_compile=JIT)
        trained(model, STEPS)
        slopes.append(ops.convert_to_numpy(predicts.layers[1].kernel)[:, 0])
        if strength != 1.0:
            np.testing.assert_allclose(strengths(model), best, rtol=2e-3)
    np.testing.assert_allclose(slopes[0], slope, atol=2e-3)
    assert np.max(abs(slopes[1] - slope)) > 0.1  # the large loss has it all


@pytest.mark.slow_on_tensorflow
def test_apart_each_strength_is_of_its_own_least_loss():
    """No slope is shared: least squares, and `1 / (2·L)` of what it leaves."""
    model, predicts = two_losses(
        Learned(), shared=False, optimizer=slowing(), jit_compile=JIT
    )
    trained(model, STEPS)
    for i, (y, unit) in enumerate(((NEAR, 1.0), (FAR, UNIT))):
        slope = X.T @ y / N
        loss = unit * np.mean((X @ slope - y) ** 2)
        assert strengths(model)[i] == pytest.approx(1 / (2 * loss), rel=2e-3)
        found = ops.convert_to_numpy(predicts.layers[1 + i].kernel)[:, 0]
        np.testing.assert_allclose(found, slope, atol=2e-3)


@pytest.mark.parametrize("eagerly", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_steps_by_hand(eagerly):
    """`d/d log w = w·L − ½`, and the terms in the logs sum to the loss."""
    model, _ = two_losses(Learned(1e-3))
    model.get_layer("line").trainable = False
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=eagerly)
    loss, w = losses_at(np.zeros(WIDTH)), np.full(2, 1e-3)
    for _ in range(3):
        logs = {name: values[0] for name, values in trained(model, 1).items()}
        by_hand = w * loss - 0.5 * np.log(w)
        expected = dict(zip(("near_loss", "far_loss"), by_hand, strict=True))
        expected |= {f"{n}_strength": s for n, s in zip(expected, w, strict=True)}
        assert logs == pytest.approx({"loss": sum(by_hand), **expected}, rel=1e-5)
        w = w * np.exp(-0.1 * (w * loss - 0.5))
    assert strengths(model) == pytest.approx(w, rel=1e-5)


def test_it_is_a_weight_that_is_saved_and_goes_on(tmp_path):
    model, predicts = two_losses(Learned(0.5), optimizer="adam")
    trained(model, 5)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(strengths(again), strengths(model))
    assert again.get_layer("far_loss").terms[0].given_strength == Learned(0.5)
    assert trained(again, 5) == trained(model, 5)
    np.testing.assert_array_equal(strengths(again), strengths(model))
    names = [w.path for w in model.trainable_weights]
    assert names == [
        "line/kernel", "near_loss/log_strength", "far_loss/log_strength"
    ]  # fmt: skip
    assert [w.path for w in predicts.weights] == ["line/kernel"]


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model, _ = two_losses(Learned(1e-3), optimizer=keras.optimizers.SGD(0.0))
    trained(model, 1)
    assert model.get_layer("far_loss").log_strength.dtype == "float32"
    assert strengths(model) == pytest.approx([1e-3, 1e-3], rel=1e-6)


def test_where_it_cannot_be():
    for build in (
        lambda: kp.penalties.L1(Learned()),
        lambda: kp.penalties.KLSparsity(Learned(), rate=0.1),
        lambda: kp.layers.Contractive(layers.Dense(2), strength=Learned()),
    ):
        with pytest.raises(ValueError, match="balances the losses of"):
            build()
    for initial in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="argument `initial`"):
            Learned(initial)
    model, _ = two_losses(Learned())
    with pytest.raises(ValueError, match="moves by itself"):
        kp.set_strength(model, "far_loss", 2.0)


@pytest.mark.parametrize("strength", Learned.examples())
def test_through_json(strength):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(strength)))
    assert keras.saving.deserialize_keras_object(config) == strength
