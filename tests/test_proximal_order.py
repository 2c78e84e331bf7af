"""What `Proximal` hands on to the inner optimizer, and the order of it all."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp
from keras_penalties.optimizers import Proximal

BACKEND = keras.backend.backend()
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
START = np.array([[3.0], [-0.5], [0.04]], "float32")
L1 = kp.penalties.L1


def numpy(x):
    return ops.convert_to_numpy(x)


def soft(x, t):
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


def weight(start=START, **kwargs):
    return keras.Variable(start, name="kernel", **kwargs)


def steps(optimizer, gradients, variable):
    """The weight after each `apply`."""
    optimizer.build([variable])
    found = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, variable.dtype)])
        found.append(numpy(variable).copy())
    return np.array(found)


def gradients(count, scale=1.0):
    draw = np.random.default_rng(0).normal(size=(count, 3, 1))
    return (scale * draw).astype("float32")


@pytest.mark.parametrize(
    "options", [{"clipnorm": 0.3}, {"clipvalue": 0.2}, {"global_clipnorm": 0.3}]
)
def test_gradients_are_clipped_first(options):
    optimizer = Proximal(SGD(0.1, **options), {"kernel": L1(0.5)})
    plain = steps(SGD(0.1, **options), gradients(1, 5.0), weight())
    found = steps(optimizer, gradients(1, 5.0), weight())
    np.testing.assert_allclose(found, soft(plain, 0.05), rtol=1e-6)


def test_weight_decay_comes_before_the_map():
    optimizer = Proximal(SGD(0.1, weight_decay=0.5), {"kernel": L1(0.5)})
    found = steps(optimizer, gradients(1), weight())
    expected = soft(START * (1 - 0.05) - 0.1 * gradients(1), 0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_weight_decay_can_leave_a_weight_out():
    optimizer = Proximal(SGD(0.1, weight_decay=0.5), {"kernel": L1(0.5)})
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    variables = [weight(), keras.Variable(START, name="other")]
    optimizer.build(variables)
    zero = ops.zeros((3, 1))
    optimizer.apply([zero, zero])
    np.testing.assert_allclose(numpy(variables[0]), soft(START, 0.05), rtol=1e-6)
    np.testing.assert_allclose(numpy(variables[1]), 0.95 * START, rtol=1e-6)


def test_a_constraint_has_the_last_word():
    unit = keras.constraints.UnitNorm(axis=0)
    variable = weight()
    variable.constraint = unit
    found = steps(Proximal(SGD(0.1), {"kernel": L1(1.0)}), gradients(3), variable)[-1]
    np.testing.assert_allclose(np.linalg.norm(found), 1.0, rtol=1e-5)
    assert found[2] == 0


def test_the_moving_average_is_of_penalised_weights():
    inner = SGD(0.1, use_ema=True, ema_momentum=0.9)
    optimizer, variable = Proximal(inner, {"kernel": L1(0.1)}), weight()
    path = steps(optimizer, gradients(4), variable)
    average = path[0]
    for point in path[1:]:
        average = np.where(point == 0, 0, 0.9 * average + 0.1 * point)
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(numpy(variable), average, rtol=1e-5)


def test_averaged_weights_have_the_zeros_of_the_last():
    inner = SGD(0.1, use_ema=True, ema_momentum=0.99)
    optimizer, variable = Proximal(inner, {"kernel": L1(1.0)}), weight()
    last = steps(optimizer, gradients(9, 0.1), variable)[-1]
    assert (last == 0).tolist() == [[False], [True], [True]]
    optimizer.finalize_variable_values([variable])
    assert (numpy(variable) == 0).tolist() == (last == 0).tolist()


def test_averages_that_overwrite_the_weights_keep_zeros():
    inner = SGD(0.1, use_ema=True, ema_momentum=0.99, ema_overwrite_frequency=2)
    found = steps(Proximal(inner, {"kernel": L1(6.0)}), gradients(2, 0.1), weight())
    assert (found[-1] == 0).tolist() == [[False], [True], [True]]


@pytest.mark.parametrize("inner", [SGD, lambda r, **k: SGD(r, momentum=0.9, **k), Adam])
def test_accumulated_gradients_make_one_step_and_one_map(inner):
    penalties = {"kernel": L1(0.5)}
    optimizer = Proximal(inner(0.1, gradient_accumulation_steps=3), penalties)
    found = steps(optimizer, gradients(9), weight())
    means = gradients(9).reshape(3, 3, 3, 1).mean(axis=1)
    expected = steps(Proximal(inner(0.1), penalties), means, weight())
    np.testing.assert_allclose(found[2::3], expected, rtol=1e-5, atol=1e-7)
    for k in range(9):
        if k % 3 != 2:
            assert (found[k] == (found[k - 1] if k > 2 else START)).all()
    assert int(optimizer.iterations) == 3


def test_a_schedule_of_the_strength_counts_real_steps():
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 3, 3.0)  # 0, 1, 2, 3, 3 …
    zero = np.zeros((5, 3, 1))
    found = steps(Proximal(SGD(0.1), {"kernel": L1(ramp)}), zero, weight())
    drops = -np.diff(found[:, 0, 0], prepend=3.0)
    np.testing.assert_allclose(drops, [0, 0.1, 0.2, 0.3, 0.3], atol=1e-6)
    inner = SGD(0.1, gradient_accumulation_steps=2)
    found = steps(Proximal(inner, {"kernel": L1(ramp)}), np.zeros((6, 3, 1)), weight())
    drops = -np.diff(found[:, 0, 0], prepend=3.0)
    np.testing.assert_allclose(drops, [0, 0, 0, 0.1, 0, 0.2], atol=1e-6)


def test_a_schedule_of_the_rate_scales_the_map():
    rate = keras.optimizers.schedules.InverseTimeDecay(0.4, 1, 1.0)  # 0.4, 0.2, 0.133
    found = steps(
        Proximal(SGD(rate), {"kernel": L1(1.0)}), np.zeros((3, 3, 1)), weight()
    )
    np.testing.assert_allclose(found[:, 0, 0], [2.6, 2.4, 2.4 - 0.4 / 3], rtol=1e-6)


def test_a_rate_of_zero_moves_nothing():
    for inner in (SGD(0.0), Adam(0.0), keras.optimizers.RMSprop(0.0, momentum=0.9)):
        penalties = {"kernel": kp.penalties.SortedL1(0.5)}
        found = steps(Proximal(inner, penalties), gradients(2), weight())
        assert (found == START).all()


def test_learning_rate_and_iterations_are_the_inner_ones():
    inner = Adam(0.1)
    optimizer = Proximal(inner, {"kernel": L1(0.1)})
    steps(optimizer, gradients(2), weight())
    assert int(optimizer.iterations) == int(inner.iterations) == 2
    optimizer.learning_rate = 0.25
    assert float(numpy(inner.learning_rate)) == 0.25
    assert float(numpy(optimizer.learning_rate)) == 0.25
    assert optimizer.inner_optimizer is inner


def test_variables_are_set_all_at_once():
    def make():
        return Proximal(SGD(0.1, momentum=0.9), {"kernel": L1(0.1)})

    trained, other, start = make(), make(), weight()
    steps(trained, gradients(3), start)
    copy = weight(numpy(start))
    other.build([copy])
    other.set_weights([numpy(v) for v in trained.variables])
    now = gradients(4)[3:]
    np.testing.assert_array_equal(steps(other, now, copy), steps(trained, now, start))


def test_loss_scale_factor_is_the_inner_one():
    inner = SGD(0.1, loss_scale_factor=8.0)
    optimizer = Proximal(inner, {"kernel": L1(0.5)})
    assert float(optimizer.scale_loss(2.0)) == 16.0
    found = steps(optimizer, 8.0 * gradients(1), weight())
    np.testing.assert_allclose(found, soft(START - 0.1 * gradients(1), 0.05), rtol=1e-6)
    keras.optimizers.LossScaleOptimizer(optimizer)
    assert inner.loss_scale_factor is None


def test_loss_scaling_goes_outside_and_skips_the_map_too():
    def make():
        return Proximal(SGD(0.1, momentum=0.9), {"kernel": L1(0.5)})

    scaled = keras.optimizers.LossScaleOptimizer(make(), initial_scale=4.0)
    plain, variable = steps(make(), gradients(2), weight()), weight()
    scaled.build([variable])
    infinite = np.full((3, 1), np.inf)
    for gradient, expected in [
        (4.0 * gradients(1)[0], plain[0]),
        (infinite, plain[0]),  # a skipped step, which halves the scale
        (2.0 * gradients(2)[1], plain[1]),
    ]:
        apply(scaled, gradient, variable)
        np.testing.assert_allclose(numpy(variable), expected, rtol=1e-6)
    assert int(scaled.iterations) == 2


def apply(optimizer, gradient, variable):
    """One step in the way the backend's trainer takes it."""
    gradient = ops.convert_to_tensor(gradient, variable.dtype)
    if BACKEND != "jax":
        optimizer.apply([gradient])
        return
    state = [v.value for v in optimizer.variables]
    weights, state = optimizer.stateless_apply(state, [gradient], [variable.value])
    for v, value in zip(
        [variable, *optimizer.variables], [*weights, *state], strict=True
    ):
        v.assign(value)


@pytest.mark.slow_on_tensorflow
def test_mixed_float16_trains():
    keras.config.set_dtype_policy("mixed_float16")
    layer = keras.layers.Dense(1, use_bias=False, name="line")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(Proximal(Adam(0.05), {"kernel": L1(0.3)}), "half_sum_squared_error")
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    model.fit(x, x[:, :1], epochs=60, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    found = numpy(layer.kernel)
    assert layer.kernel.dtype == "float32"
    assert 0.5 < found[0] < 0.8
    assert (found[1:] == 0).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights(dtype):
    found = steps(
        Proximal(SGD(0.5), {"kernel": L1(1.0)}), gradients(1), weight(dtype=dtype)
    )
    expected = soft(START - 0.5 * gradients(1), 0.5)
    np.testing.assert_allclose(found.astype("float32"), expected, rtol=0.02)


def test_a_strength_that_is_assigned_acts_at_once():
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(Proximal(SGD(0.1), {"kernel": L1(0.0)}), "mse")
    nothing = np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32")
    model.fit(*nothing, verbose=0)
    assert (numpy(layer.kernel) == 1).all()
    model.optimizer.state.vector.assign([1.0])
    model.fit(*nothing, verbose=0)
    np.testing.assert_allclose(numpy(layer.kernel), 0.9, rtol=1e-6)


def test_callbacks_find_the_rate_and_the_average():
    inner = SGD(1.0, use_ema=True)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(Proximal(inner, {"kernel": L1(0.5)}), "mse")
    nothing = np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32")
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 + epoch)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(*nothing, epochs=2, callbacks=[schedule, swap], verbose=0)
    assert float(numpy(inner.learning_rate)) == pytest.approx(1.1)
    np.testing.assert_allclose(numpy(layer.kernel), 0.99 * 0.95 + 0.01 * 0.4, rtol=1e-5)
