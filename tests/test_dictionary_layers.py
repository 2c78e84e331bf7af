"""The parts of dictionary autoencoders, against torch's own and closed forms."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_penalties as kp
from keras_penalties.autodiff import gradient
from keras_penalties.layers.top_k import kth_largest

RNG = np.random.default_rng(0)


def array(x):
    return ops.convert_to_numpy(ops.stop_gradient(ops.convert_to_tensor(x)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_top_k_is_sorting(k, seed):
    x = np.random.default_rng(seed).normal(size=(5, 6)).astype("float32")
    order = np.argsort(-x, axis=-1)[:, :k]
    expected = np.zeros_like(x)
    np.put_along_axis(expected, order, np.take_along_axis(x, order, -1), -1)
    layer = kp.layers.TopK(k)
    np.testing.assert_array_equal(array(layer(x)), np.maximum(expected, 0.0))
    slope = gradient(lambda z: ops.sum(layer(z) ** 2), ops.convert_to_tensor(x))
    np.testing.assert_allclose(array(slope), 2 * np.maximum(expected, 0.0), rtol=1e-6)


def test_equal_entries_and_nan_are_kept():
    x = np.array([[1.0, 2.0, 2.0, 0.5], [1.0, np.nan, 2.0, 3.0]], "float32")
    found = array(kp.layers.TopK(1)(x))
    np.testing.assert_array_equal(found[0], [0.0, 2.0, 2.0, 0.0])
    assert np.isnan(found[1]).any()
    jump = kp.layers.JumpReLU(initial_threshold=1.0)
    assert np.isnan(array(jump(x))[1, 1])


@pytest.mark.parametrize("k", [0, 5, 1.5, "2", None])
def test_a_count_that_can_not_be_is_refused(k):
    with pytest.raises(ValueError, match="`k`"):
        kp.layers.TopK(k)(np.zeros((2, 4), "float32"))


def test_batch_top_k_shares_the_entries():
    x = RNG.normal(size=(20, 8)).astype("float32")
    layer = kp.layers.BatchTopK(1.5, momentum=0.5)
    kept = array(layer(x, training=True))
    bound = np.sort(x.ravel())[-30]
    np.testing.assert_array_equal(kept, np.where(x >= bound, np.maximum(x, 0), 0))
    # The first batch alone makes the threshold; the second one counts half as well.
    assert float(layer.threshold) == pytest.approx(bound)
    other = 2.0 * x
    layer(other, training=True)
    expected = (0.5 * 0.5 * bound + 0.5 * 2 * bound) / (0.5 * 0.5 + 0.5)
    assert float(layer.threshold) == pytest.approx(expected, rel=1e-5)
    found = array(layer(x))
    np.testing.assert_array_equal(found, np.where(x > np.float32(expected), x, 0))
    layer(-np.abs(x), training=True)  # without a positive entry
    assert float(layer.threshold) == pytest.approx(expected, rel=1e-5)


def smoothed(x, threshold, bandwidth):
    """JumpReLU's gradients as the paper's appendix has them, in NumPy."""
    inside = (np.abs(x - threshold) < bandwidth / 2) / bandwidth
    return -threshold * inside, -inside


@pytest.mark.parametrize("bandwidth", [0.2, 1.0])
def test_jump_relu_has_the_straight_through_gradient(bandwidth):
    x = RNG.uniform(0.0, 2.0, (7, 3)).astype("float32")
    start = np.array([0.5, 1.0, 1.5], "float32")
    layer = kp.layers.JumpReLU(0.3, bandwidth=bandwidth)
    layer.build(x.shape)

    def total(threshold):
        with keras.StatelessScope(state_mapping=[(layer.threshold, threshold)]) as s:
            y, near = layer(x), None
        del s, near
        return ops.sum(y**2)

    of_y, of_count = smoothed(x, start, bandwidth)
    y = np.where(x > start, x, 0.0)
    if keras.backend.backend() != "torch":  # whose stateless variables have no slope
        found = gradient(total, ops.convert_to_tensor(start))
        np.testing.assert_allclose(array(found), (2 * y * of_y).sum(0), rtol=1e-5)
    # One step of SGD on L0 alone, by fit: the inputs have no part in it.
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(inputs))
    layer.threshold.assign(start)
    model.compile(keras.optimizers.SGD(1.0), loss=None)
    history = model.fit(x, epochs=1, batch_size=7, verbose=0).history
    assert history["loss"][0] == pytest.approx(
        0.3 * (x > start).sum(1).mean(), rel=1e-6
    )
    moved = np.maximum(start - 0.3 * of_count.sum(0) / 7, 0.0)
    np.testing.assert_allclose(array(layer.threshold), moved, rtol=1e-5)


@pytest.mark.slow
def test_a_target_holds_the_number_of_units():
    x = RNG.normal(size=(256, 16)).astype("float32")
    model = kp.models.JumpReLUAutoencoder(32, kp.Target(4.0, rate=0.02), seed=0)
    model.compile(keras.optimizers.Adam(0.01), "half_sum_squared_error")
    model.fit(x, x, epochs=80, batch_size=64, verbose=0)
    assert model.evaluate(x, x, verbose=0, return_dict=True)["code_l0"] < 6.0


@pytest.mark.parametrize("k", [1, 2, 3])
def test_dead_units_explain_the_residual(k):
    """Against the sum as the paper writes it, in NumPy."""
    pre = RNG.normal(size=(6, 5)).astype("float32")
    pre[:, :2] = -np.abs(pre[:, :2])  # two units that never fire
    pre[:, 2:] = np.abs(pre[:, 2:])
    code, kernel = np.maximum(pre, 0), RNG.normal(size=(5, 4)).astype("float32")
    residual = RNG.normal(size=(6, 4)).astype("float32")
    layer = kp.layers.AuxK(0.7, k=k, after=1)
    tensors = {"pre_activation": pre, "residual": residual, "kernel": kernel}
    for _ in range(2):
        layer(code, **tensors, training=True)
        assert float(layer.losses[0]) == 0.0
    assert array(layer.dead).tolist() == [True, True, False, False, False]
    layer(code, **tensors, training=True)
    chosen = np.zeros_like(pre)
    order = np.argsort(-pre[:, :2], axis=1)[:, : min(k, 2)]
    np.put_along_axis(chosen, order, np.take_along_axis(pre, order, 1), 1)
    squares = 0.5 * ((chosen @ kernel - residual) ** 2).sum(1).mean()
    expected = 0.7 * min(2 / k, 1) * squares
    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-5)
    layer(np.abs(pre), **tensors, training=True)  # now all fire
    assert not array(layer.dead).any()


def test_the_rows_of_a_dictionary_stay_at_length_one():
    x = RNG.normal(size=(32, 4)).astype("float32")
    layer = kp.layers.UnitNormDense(3)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(x, x[:, :3], epochs=3, verbose=0)
    sizes = np.linalg.norm(array(layer.kernel), axis=1)
    np.testing.assert_allclose(sizes, 1.0, rtol=1e-5)


def test_the_gradient_of_a_dictionary_has_no_part_along_a_row():
    from keras_penalties.layers.unit_norm import unit_rows

    kernel, weights = (RNG.normal(size=(5, 4)).astype("float32") for _ in "ab")
    slope = gradient(
        lambda k: ops.sum(ops.sin(unit_rows(k)) * ops.convert_to_tensor(weights)),
        ops.convert_to_tensor(kernel),
    )
    along = (array(slope) * kernel).sum(1)
    np.testing.assert_allclose(along, 0.0, atol=1e-5)


def test_the_gate_and_the_code():
    x = RNG.normal(size=(9, 4)).astype("float32")
    layer = kp.layers.GatedDense(3)
    layer.build(x.shape)
    for v in (layer.gate_bias, layer.magnitude_bias, layer.log_scale):
        v.assign(RNG.normal(size=(3,)))
    kernel, b, c, r = map(array, layer.get_weights())
    code, gate = layer(x, return_gate=True)
    pre = x @ kernel + b
    magnitude = np.maximum(x @ (kernel * np.exp(r)) + c, 0.0)
    np.testing.assert_allclose(array(gate), np.maximum(pre, 0), rtol=1e-5, atol=1e-6)
    expected = (pre > 0) * magnitude
    np.testing.assert_allclose(array(code), expected, rtol=1e-5, atol=1e-6)


def test_statistics_start_anew_in_each_epoch():
    x = np.eye(4, dtype="float32")
    layer = kp.layers.CodeStatistics(name="code")
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2)(layer(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    shown = model.fit(x[:3], x[:3, :2], epochs=2, batch_size=2, verbose=0).history
    assert shown["code_l0"] == [1.0, 1.0]
    assert shown["code_dead"] == [0.25, 0.25]
    found = model.evaluate(x[:1], x[:1, :2], verbose=0, return_dict=True)
    assert found["code_dead"] == 0.75


def test_a_masked_row_is_not_counted():
    x = np.array([[[1.0, 2.0], [0.0, 0.0]]], "float32")
    inputs = keras.Input((2, 2))
    masked = keras.layers.Masking()(inputs)
    model = keras.Model(inputs, kp.layers.CodeStatistics(name="code")(masked))
    model.compile(loss="mse")
    assert model.evaluate(x, x, verbose=0, return_dict=True)["code_l0"] == 2.0


def test_the_kth_largest_is_a_minimum():
    """XLA sorts a whole row for the last entry of `top_k`; the minimum spares that."""
    x = RNG.normal(size=(3, 50)).astype("float32")
    found = array(kth_largest(ops.convert_to_tensor(x), 7))
    np.testing.assert_array_equal(found[:, 0], np.sort(x)[:, -7])
