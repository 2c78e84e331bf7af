"""What looked like faults and is arithmetic: see `docs/campaign.md`."""

import keras
import modes
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp

UNIT = {"float32": 2.0**-24, "mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}
"""By how much a number is rounded at most, with one bit in reserve for half floats:
XLA may round to even or towards zero."""


def wide(x):
    return ops.convert_to_numpy(x).astype("float64")


def slope_penalty(z, policy, inner=None):
    """‖∂ tanh(x) / ∂x‖² at x = z, by the layer."""
    with modes.policy(policy):
        line = layers.Dense(1, "tanh", kernel_initializer="ones", dtype=inner)
        layer = kp.layers.InputGradient(line, "l2(1.0)")
        layer(ops.convert_to_tensor([[z]], "float32"))
    return float(wide(layer.losses[0]))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_derivative_in_half_floats_is_off_where_a_unit_is_saturated(policy):
    """tanh' = 1 − y²: the closer y is to 1, the less of y's digits are left."""
    u, errors = UNIT[policy], []
    for z in np.linspace(0.1, 2.5, 13):
        y = np.tanh(z)
        right = (1.0 - y**2) ** 2
        errors.append(abs(slope_penalty(z, policy) / right - 1.0))
        # What y's rounding, z's and those of four operations do to the square.
        bound = 2.0 * u * (2.0 * y**2 / (1.0 - y**2) + 2.0 * y * z + 4.0)
        assert errors[-1] <= bound, z
        # A wrapped layer in float32 is right in the same model.
        exact = slope_penalty(z, policy, inner="float32")
        assert exact == pytest.approx(right, rel=200 * UNIT["float32"])
    assert max(errors) > 8 * u


@pytest.mark.parametrize("excess", [1e-1, 1e-3, 1e-5])
def test_near_its_radius_a_gradient_penalty_has_the_error_of_its_norm(excess):
    """10·(‖w‖ − 1)²: its gradient falls with ‖w‖ − 1, its error does not."""
    w = np.random.default_rng(0).normal(size=64)
    w = (w / np.linalg.norm(w) * (1.0 + excess)).astype("float32")
    start = keras.initializers.Constant(w[:, None])
    critic = layers.Dense(1, use_bias=False, kernel_initializer=start)
    model = keras.Sequential([keras.Input((64,)), kp.layers.GradientPenalty(critic)])
    model.compile(keras.optimizers.SGD(1.0))
    model.train_on_batch(np.ones((2, 64), "float32"))
    length = np.linalg.norm(w.astype("float64"))
    right = 20.0 * (length - 1.0) * w / length
    error = w - wide(critic.kernel)[:, 0] - right
    # The norm and its difference from 1, each rounded; then the step itself.
    bound = 20.0 * 4.0 * UNIT["float32"] * np.abs(w) + UNIT["float32"] * np.abs(right)
    assert np.all(np.abs(error) <= bound + UNIT["float32"] * np.max(np.abs(w)))


def trained_attention(penalised, mode, optimizer):
    """The logs, and each weight by the end of its path."""
    host = modes.Host(
        modes.attention if penalised else modes.plain_attention, optimizer=optimizer
    )
    model, logs = modes.trained(host, mode)
    return logs, {
        "/".join(v.path.split("/")[-2:]): wide(v) for v in model.trainable_variables
    }


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("penalised", [False, True])
def test_only_rounding_moves_the_bias_of_attentions_keys(penalised):
    """A number that is added to all scores of a query changes no softmax."""
    fast = modes.MODES["all at once"]
    if modes.refused_by_keras(fast):
        fast = modes.MODES["accumulation"]
    plain = modes.Mode({"run_eagerly": True}, accumulate=2)
    found = [trained_attention(penalised, m, lambda o: o) for m in (plain, fast)]
    for name, weight in found[0][1].items():
        if name == "key/bias":
            noise = max(np.max(np.abs(weights[name])) for _, weights in found)
            assert noise < 1e-7
        else:
            np.testing.assert_allclose(found[1][1][name], weight, atol=2e-6, rtol=0)
    # Adam divides a gradient by its own size, so that the noise becomes large steps.
    adam = keras.optimizers.Adam
    found = [
        trained_attention(
            penalised, m, lambda _: adam(0.01, gradient_accumulation_steps=2)
        )
        for m in (plain, fast)
    ]
    biases = [weights["key/bias"] for _, weights in found]
    assert np.max(np.abs(biases)) > 10 * noise
    if BACKEND != "torch":  # there both are run by the same kernels
        assert not np.allclose(*biases, rtol=0.1, atol=0)
    for name in found[0][0]:
        np.testing.assert_allclose(found[1][0][name], found[0][0][name], rtol=2e-4)
