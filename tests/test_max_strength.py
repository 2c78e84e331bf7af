"""`max_strength` against dual norms, scikit-learn, and what training then does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from scipy.optimize import brentq

import keras_penalties as kp
from keras_penalties import penalties as p
from keras_penalties.optimizers import Proximal
from keras_penalties.paths.zeroing import Zeroing, zeroing_terms

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 3)) + RNG.normal(size=(30, 3))).astype("float32")
G = RNG.normal(size=(6, 4))
"""A gradient."""


def rows(x):
    return np.linalg.norm(x, axis=1)


DUALS = {
    "l1": (p.L1(), np.abs(G).max()),
    "rows": (p.Grouped(p.L1(), axis=0), rows(G).max()),
    "one group": (p.Grouped(p.L1()), np.linalg.norm(G)),
    "root of size": (
        p.Grouped(p.L1(), axis=-1, weights="sqrt_size"),
        rows(G.T).max() / np.sqrt(6),
    ),
    "weights": (
        p.Grouped(p.L1(), axis=0, weights=[1, 2, 3, 4, 5, 6.0]),
        np.max(rows(G) / [1, 2, 3, 4, 5, 6]),
    ),
    "largest entry": (p.Grouped(p.L1(), norm="max"), np.abs(G).sum()),
    "nuclear": (p.Spectral(p.L1()), np.linalg.norm(G, 2)),
    "elastic net": (p.ElasticNet(), 2.0 * np.abs(G).max()),
    "huber": (p.HuberL1(), None),
    "mcp": (p.MCP(width=0.05), np.abs(G).max()),
    "scad": (p.SCAD(), np.abs(G).max()),
    "logarithm": (p.LogSum(epsilon=0.1), 0.1 * np.abs(G).max()),
    "rows by mcp": (p.Grouped(p.MCP(width=0.3), axis=0), rows(G).max()),
    "total variation": (p.TotalVariation(axis=0), None),
    "l2": (p.L2(), None),
}


def alone(penalty, *strengths, place=0):
    """The smallest strength of a part, beside the given strengths of all parts."""
    return Zeroing("", None, None, penalty, place, strengths or (0.0,)).smallest(G)


@pytest.mark.parametrize("name", DUALS)
def test_it_is_the_dual_norm(name):
    penalty, expected = DUALS[name]
    found = alone(penalty)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, rel=2e-6)


def test_beside_other_parts_of_a_sum():
    sparse_rows = p.L1(0.2) + p.Grouped(p.L1(0.3), axis=0)
    shrunk = np.maximum(np.abs(G) - 0.2, 0)
    found = alone(sparse_rows, 0.2, 0.3, place=1)
    assert found == pytest.approx(rows(shrunk).max(), rel=2e-6)

    def excess(strength):
        return rows(np.maximum(np.abs(G) - strength, 0)).max() - 0.3

    found = alone(sparse_rows, 0.2, 0.3, place=0)
    assert found == pytest.approx(brentq(excess, 0, 5), rel=2e-6)
    assert alone(sparse_rows, 9.0, 0.3, place=1) == 0.0


def linear(penalty, loss="mse", units=3, **kwargs):
    dense = keras.layers.Dense(units, name="line", **kwargs)
    model = keras.Sequential([keras.Input((5,)), dense], name="net")
    sgd = keras.optimizers.SGD(0.1)
    model.compile(Proximal(sgd, {"line/kernel": penalty}), loss)
    return model


def only(found):
    (value,) = found.values()
    return value


def test_scikit_learns_lasso_and_logistic_regression():
    """Its objectives: 1/(2n) of the squares + alpha, and the sum of losses · C + L1."""
    from sklearn.linear_model import lars_path
    from sklearn.svm import l1_min_c

    centred, y = X - X.mean(axis=0), Y[:, 0]
    alphas, *_ = lars_path(centred.astype("float64"), y - y.mean(), method="lasso")
    model = linear("l1(0.1)", units=1)
    model.layers[0].bias.assign([y.mean()])
    assert only(kp.max_strength(model, X, y)) == pytest.approx(2 * alphas[0], rel=1e-5)

    labels = (y > 0).astype("float32")
    least = l1_min_c(X, labels, loss="log", fit_intercept=False)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    found = kp.max_strength(linear("l1(0.1)", loss, units=1), X, labels[:, None])
    assert only(found) == pytest.approx(1 / (least * len(X)), rel=1e-5)


def test_skglms_mcp():
    """Its objective is 1/(2n) of the squares + MCP; our width is its γ·λ."""
    from skglm.penalties import MCPenalty

    y = Y[:, :1]
    expected = MCPenalty(1.0, 3.0).alpha_max(X.T @ y / len(X))
    model = linear(p.MCP(1.0, width=3.0), units=1, use_bias=False)
    assert only(kp.max_strength(model, X, y)) == pytest.approx(2 * expected, rel=1e-5)


def test_training_stays_at_zero_from_there_on():
    model = linear(p.Grouped(p.L1(0.1), axis=0))
    model.layers[0].kernel.assign(np.zeros((5, 3)))
    model.layers[0].bias.trainable = False  # so that the gradient stays what it was
    model.compile(model.optimizer, "mse")
    (name, least) = next(iter(kp.max_strength(model, X, Y).items()))
    for factor, zero in ((1.001, True), (0.98, False)):
        kp.set_strength(model, name, factor * least)
        model.fit(X, Y, batch_size=len(X), epochs=3, verbose=0)
        assert zero == (not np.any(ops.convert_to_numpy(model.layers[0].kernel)))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8], W[8 * i : 8 * i + 8]


W = RNG.random(30).astype("float32")


def test_datasets_and_weights_as_fit_takes_them():
    model = linear("l1(0.1)")
    whole = only(kp.max_strength(model, X, Y, sample_weight=W, batch_size=30))
    bias = ops.convert_to_numpy(model.layers[0].bias)
    slope = 2 / 3 / 30 * X.T @ (W[:, None] * (bias - Y))
    assert whole == pytest.approx(np.abs(slope).max(), rel=1e-5)
    for data in (Batches(), foreign()):
        assert only(kp.max_strength(model, data)) == pytest.approx(whole, rel=1e-5)
    parts = kp.max_strength(model, X, Y, sample_weight=W, batch_size=7)
    assert only(parts) == pytest.approx(whole, rel=1e-5)


def foreign():
    """The backend's own kind of dataset."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((X, Y, W)).batch(8)
    if keras.backend.backend() == "torch":
        from torch.utils.data import DataLoader, TensorDataset

        arrays = map(ops.convert_to_tensor, (X, Y, W))
        return DataLoader(TensorDataset(*arrays), batch_size=8)
    return Uneven()


class Uneven(Batches):
    """Batches of 20 and of 10 samples."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        part = slice(20 * i, 20 * i + 20)
        return X[part], Y[part], W[part]


def deep():
    """Two outputs, dropout, batch normalization, and another penalty in the loss."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, "tanh", name="first", kernel_regularizer=None)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(kp.layers.ActivityPenalty("l2(0.1)")(x))
    outputs = [keras.layers.Dense(3, name="a")(x), keras.layers.Dense(1, name="b")(x)]
    model = keras.Model(inputs, outputs, name="net")
    rules = {"(first|a)/kernel": p.L1(0.1) + p.L2(0.1)}
    model.compile(Proximal("adam", rules), ["mse", "mae"])
    return model


@pytest.mark.slow_on_tensorflow
def test_each_weight_alone_and_nothing_moves():
    model = deep()
    targets = [Y, Y[:, :1]]
    model.fit(X, targets, verbose=0)
    variables = [*model.variables, *model.optimizer.variables]
    before = [ops.convert_to_numpy(v).copy() for v in variables]
    found = kp.max_strength(model, X, targets)
    assert list(found) == ["first_kernel_l1", "a_kernel_l1"]
    assert min(found.values()) > 0
    with pytest.raises(ValueError, match="finite gradient at"):
        kp.max_strength(model, np.full_like(X, np.nan), targets)
    with pytest.raises(Exception, match=r"\S"):
        kp.max_strength(model, X[:, :3], targets)
    for variable, array in zip(variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), array)
    model.fit(X, targets, verbose=0)


@pytest.mark.parametrize("penalty", ["l2(0.1)", p.Lp(0.1), p.Box(low=0.0)])
def test_what_no_strength_makes_zero_is_refused(penalty):
    with pytest.raises(ValueError, match=r"`model`.*a finite strength makes zero"):
        kp.max_strength(linear(penalty), X, Y)


def test_a_set_without_zero_is_refused():
    model = linear(p.L1(0.1) + p.Box(low=1.0, high=2.0))
    with pytest.raises(ValueError, match=r"lets 'net/line/kernel' be zero"):
        kp.max_strength(model, X, Y)


def test_bad_data_and_models():
    model = linear("l1(0.1)")
    with pytest.raises(ValueError, match=r"`x`.*read again"):
        kp.max_strength(model, iter([(X, Y)]))
    with pytest.raises(ValueError, match=r"`x`.*one sample"):
        kp.max_strength(model, X[:0], Y[:0])
    with pytest.raises(ValueError, match=r"`y`.*beside a dataset"):
        kp.max_strength(model, Batches(), Y)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`model`.*compiled with"):
        zeroing_terms(model)
