"""`fisher`: the mean of squared gradients of each sample, against closed forms."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp
from keras_penalties.optimizers import Penalizing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 5)).astype("float32")
Y = RNG.normal(size=(20, 3)).astype("float32")
LABELS = RNG.integers(0, 3, size=20)


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def linear(loss="half_sum_squared_error", **kwargs):
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3, name="line", **kwargs)]
    )
    model.compile("sgd", loss)
    return model, model.layers[0]


def squares(residual):
    """Mean of `(x·residual)²` for the kernel, of `residual²` for the bias."""
    x = X.astype("float64")
    kernel = np.mean((x[:, :, None] * residual[:, None, :]) ** 2, axis=0)
    return kernel, np.mean(residual**2, axis=0)


def close(found, layer, expected):
    kernel, bias = found.values()
    assert [path.rpartition("/")[2] for path in found] == ["kernel", "bias"]
    np.testing.assert_allclose(kernel, expected[0], rtol=1e-5)
    np.testing.assert_allclose(bias, expected[1], rtol=1e-5)
    assert kernel.dtype == np.float32


def test_exact_on_a_linear_model():
    model, layer = linear()
    residual = X @ numpy(layer.kernel) + numpy(layer.bias) - Y
    close(kp.fisher(model, (X, Y)), layer, squares(residual))


def test_exact_on_logistic_regression():
    loss = keras.losses.SparseCategoricalCrossentropy()
    model, layer = linear(loss, activation="softmax")
    logits = X @ numpy(layer.kernel) + numpy(layer.bias)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    close(kp.fisher(model, (X, LABELS)), layer, squares(p - np.eye(3)[LABELS]))


def test_penalties_have_no_part_in_it():
    _, layer = linear(kernel_regularizer="l2", activity_regularizer="l1")
    penalised = keras.Sequential(
        [
            keras.Input((5,)),
            kp.layers.Penalized(layer, weights={"bias": "l2(3)"}, outputs="l1(1)"),
        ]
    )
    penalised.compile("sgd", "half_sum_squared_error")
    residual = X @ numpy(layer.kernel) + numpy(layer.bias) - Y
    close(kp.fisher(penalised, (X, Y)), layer, squares(residual))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


@pytest.mark.parametrize(
    "data", [[(X[:7], Y[:7]), (X[7:], Y[7:])], Batches()], ids=["list", "PyDataset"]
)
def test_batches_of_any_size(data):
    model, _ = linear()
    expected, found = kp.fisher(model, (X, Y)), kp.fisher(model, data)
    for path, array in expected.items():
        np.testing.assert_allclose(found[path], array, rtol=1e-6)


def test_dropout_is_off_and_nothing_moves():
    inputs = keras.Input((5,))
    x = keras.layers.BatchNormalization()(inputs)
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    before = [numpy(w) for w in model.weights]
    found = [kp.fisher(model, (X, Y), loss="mse") for _ in range(2)]
    assert len(found[0]) == len(model.trainable_variables) == 4
    for path, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][path])
    for w, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(w), value)


def test_it_goes_straight_into_rules():
    """Elastic weight consolidation: `½·Σ strength·F·(w − start)²`."""
    model, _ = linear()
    found = kp.fisher(model, (X, Y))
    rules = {
        path: kp.penalties.ToReference(2.0, values="start", weights=weights)
        for path, weights in found.items()
    }
    start = [numpy(w) for w in model.trainable_variables]
    model.compile(Penalizing("sgd", rules), "mse")
    model.fit(X, Y, epochs=3, verbose=0)
    pairs = zip(model.trainable_variables, start, found.values(), strict=True)
    expected = [np.sum(f * (numpy(w) - s) ** 2) for w, s, f in pairs]
    present = [t.present() for t in kp.terms(model)]
    np.testing.assert_allclose(present, expected, rtol=1e-4)
    assert list(found) == ["line/kernel", "line/bias"]


@pytest.mark.parametrize(
    ("data", "match"),
    [([], "at least one sample"), ((X, Y, Y), "a batch"), (3, "Iterable")],
)
def test_bad_data(data, match):
    with pytest.raises(ValueError, match=rf"`data`.*{match}"):
        kp.fisher(linear()[0], data)


def test_no_loss_or_several():
    model, _ = linear()
    with pytest.raises(ValueError, match="`loss`"):
        kp.fisher(model, (X, Y), loss=["mse"])
    with pytest.raises(ValueError, match="`loss`"):
        kp.fisher(keras.Sequential([keras.Input((5,)), *model.layers]), (X, Y))
