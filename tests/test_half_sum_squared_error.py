"""`HalfSumSquaredError` and with it the contract that every loss here inherits."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(5, 3)).astype("float32")
P = RNG.normal(size=(5, 3)).astype("float32")
PER_SAMPLE = 0.5 * np.sum((Y - P) ** 2, axis=-1)


def loss(**arguments):
    return kp.losses.HalfSumSquaredError(**arguments)


def test_reductions():
    assert float(loss()(Y, P)) == pytest.approx(PER_SAMPLE.mean(), rel=1e-6)
    total = loss(reduction="sum")(Y, P)
    assert float(total) == pytest.approx(PER_SAMPLE.sum(), rel=1e-6)
    each = ops.convert_to_numpy(loss(reduction=None)(Y, P))
    np.testing.assert_allclose(each, PER_SAMPLE, rtol=1e-6)


def test_it_is_half_of_torch_style_sums_and_of_keras_mse():
    mse = float(keras.losses.MeanSquaredError()(Y, P))
    assert float(loss()(Y, P)) == pytest.approx(1.5 * mse, rel=1e-6)


@pytest.mark.parametrize("shapes", [((5,), (5, 1)), ((5, 1), (5,)), ((5,), (5,))])
def test_ranks_are_aligned(shapes):
    """Plain Keras code broadcasts (batch,) against (batch, 1) to (batch, batch)."""
    true, pred = (v[:, 0].reshape(s) for v, s in zip((Y, P), shapes, strict=True))
    each = loss(reduction=None)(true, pred)
    np.testing.assert_allclose(
        ops.convert_to_numpy(each), 0.5 * (Y - P)[:, 0] ** 2, rtol=1e-6
    )


@pytest.mark.parametrize("shape", [(5, 2), (5, 3, 2), (5, 1), (5,)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match=r"`y_true` and `y_pred`"):
        loss()(np.zeros(shape), P)


def test_a_last_axis_of_one_over_more_axes_is_dropped_as_keras_drops_it():
    each = loss(reduction=None)(Y[..., None], P)
    np.testing.assert_allclose(ops.convert_to_numpy(each), PER_SAMPLE, rtol=1e-6)


def test_a_rank_1_target_in_fit_is_not_broadcast():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", loss="half_sum_squared_error")
    perfect = model.predict(P, verbose=0)[:, 0]
    assert model.evaluate(P, perfect, verbose=0) == pytest.approx(0.0, abs=1e-10)


def test_sample_weight():
    weight = np.array([1.0, 0.0, 2.0, 0.5, 3.0], "float32")
    value = loss()(Y, P, sample_weight=weight)
    assert float(value) == pytest.approx((weight * PER_SAMPLE).mean(), rel=1e-6)
    total = loss(reduction="sum")(Y, P, sample_weight=weight)
    assert float(total) == pytest.approx((weight * PER_SAMPLE).sum(), rel=1e-6)


def test_mask():
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    inputs = keras.Input((3,))
    embedded = layers.Embedding(4, 2, mask_zero=True)(inputs)
    model = keras.Model(inputs, embedded)
    model.compile("sgd", loss="half_sum_squared_error")
    target = np.zeros((2, 3, 2), "float32")
    out = model.predict(tokens, verbose=0)
    valid = tokens != 0
    expected = (0.5 * np.sum(out**2, axis=-1) * valid).sum() / valid.sum()
    assert model.evaluate(tokens, target, verbose=0) == pytest.approx(
        expected, rel=1e-5
    )


def test_dtype():
    if keras.backend.backend() != "jax":  # which has no float64 unless asked for
        value = loss(dtype="float64")(Y, P)
        assert keras.backend.standardize_dtype(value.dtype) == "float64"
    half = loss(dtype="float16")(Y, P)
    assert float(half) == pytest.approx(PER_SAMPLE.mean(), rel=1e-2)


def test_bad_reduction():
    with pytest.raises(ValueError, match="argument `reduction`"):
        loss(reduction="average")
