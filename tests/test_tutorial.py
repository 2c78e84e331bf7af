"""The tutorial's objective: by hand, by its own loop, and by our `fit`."""

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import ops

import keras_penalties as kp
from keras_penalties.autodiff import value_and_gradient

ALPHA, BETA, RHO = 0.1, 0.7, 0.1


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def joined(x):
    return np.concatenate([x, np.ones_like(x[:, :1])], axis=1)


def objective_by_hand(x, w1, w2):
    """½Σ(x − x̂)² + (α/2)(‖W₁‖² + ‖W₂‖²) + βΣKL(ρ‖ρ̂), sums over all samples."""
    hidden = sigmoid(joined(x) @ w1)
    output = sigmoid(joined(hidden) @ w2)
    q = hidden.mean(axis=0)
    kl = RHO * np.log(RHO / q) + (1 - RHO) * np.log((1 - RHO) / (1 - q))
    error = 0.5 * np.sum((x - output) ** 2)
    decay = 0.5 * ALPHA * (np.sum(w1**2) + np.sum(w2**2))
    return error + decay + BETA * np.sum(kl)


def tutorial_model(dtype="float32"):
    model = kp.models.SparseAutoencoder.from_preset(
        "tutorial", sparsity=BETA, dtype=dtype
    )
    model.build((None, 6))
    return model


def compiled(model, dtype="float32"):
    loss = kp.losses.HalfSumSquaredError(reduction="sum", dtype=dtype)
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    return model


def kernels(model):
    return [
        ops.convert_to_numpy(v).astype("float64")
        for v in (model.encoder.layer.kernel, model.decoder.layer.kernel)
    ]


@pytest.fixture
def x():
    return np.random.default_rng(0).random((24, 6)).astype("float32")


def test_objective_equals_numpy(x):
    model = compiled(tutorial_model())
    logs = model.evaluate(x, x, batch_size=len(x), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(
        objective_by_hand(x, *kernels(model)), rel=1e-6
    )
    w1, w2 = kernels(model)
    assert logs["encoder_kernel_l2"] == pytest.approx(ALPHA / 2 * np.sum(w1**2))
    assert logs["decoder_kernel_l2"] == pytest.approx(ALPHA / 2 * np.sum(w2**2))
    assert w1.shape == (7, 18)  # three times the input's width, and the bias unit
    assert w2.shape == (19, 6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="float64 is TensorFlow's alone")
def test_gradient_equals_finite_differences(x):
    import tensorflow as tf

    keras.config.set_floatx("float64")
    try:
        model = compiled(tutorial_model("float64"), "float64")
        x = x.astype("float64")
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, x, model(x, training=True))
        gradients = [
            g.numpy() for g in tape.gradient(loss, [v.value for v in variables])
        ]
    finally:
        keras.config.set_floatx("float32")
    weights = kernels(model)
    rng = np.random.default_rng(1)
    for which, gradient in enumerate(gradients):
        for _ in range(10):
            at = tuple(rng.integers(n) for n in gradient.shape)
            ends = []
            for step in (1e-5, -1e-5):
                moved = [w.copy() for w in weights]
                moved[which][at] += step
                ends.append(objective_by_hand(x, *moved))
            slope = (ends[0] - ends[1]) / 2e-5
            assert gradient[at] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def get_loss(w1, w2, x):
    """The tutorial's own function, for any backend."""
    one = ops.ones_like(x[:, :1])
    hidden = ops.sigmoid(ops.matmul(ops.concatenate([x, one], 1), w1))
    output = ops.sigmoid(ops.matmul(ops.concatenate([hidden, one], 1), w2))
    q = ops.mean(hidden, axis=0)
    kl = RHO * ops.log(RHO / q) + (1 - RHO) * ops.log((1 - RHO) / (1 - q))
    decay = ops.sum(ops.square(w1)) + ops.sum(ops.square(w2))
    error = 0.5 * ops.sum(ops.square(x - output))
    return error + 0.5 * ALPHA * decay + BETA * ops.sum(kl)


def get_grad(w1, w2, x):
    loss, g1 = value_and_gradient(lambda w: get_loss(w, w2, x), w1)
    _, g2 = value_and_gradient(lambda w: get_loss(w1, w, x), w2)
    return loss, [g1, g2]


def network_learn(variables, optimizer, x):
    """One step. The tutorial made a new Adam here, which forgets its moments."""
    w1, w2 = (ops.convert_to_tensor(v) for v in variables)
    loss, gradients = get_grad(w1, w2, x)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return float(ops.convert_to_numpy(ops.stop_gradient(loss)))


def test_the_tutorials_loop_and_fit_agree_step_for_step(x):
    steps = 60
    model = compiled(tutorial_model())
    variables = [keras.Variable(w.astype("float32")) for w in kernels(model)]
    optimizer = keras.optimizers.Adam(0.01)
    batch = ops.convert_to_tensor(x)
    by_loop = [network_learn(variables, optimizer, batch) for _ in range(steps)]

    history = model.fit(x, x, batch_size=len(x), epochs=steps, verbose=0)
    np.testing.assert_allclose(history.history["loss"], by_loop, rtol=2e-5)
    assert by_loop[-1] < 0.9 * by_loop[0]
    for ours, theirs in zip(kernels(model), variables, strict=True):
        np.testing.assert_allclose(ours, ops.convert_to_numpy(theirs), atol=2e-3)


def test_plain_squared_error_as_a_custom_loss(x):
    """The tutorial's part 1, by the name that `register` gave."""

    @kp.register(package="tutorial_part_1")
    def plain_squared_error(y_actual, y_pred):
        return (y_actual - y_pred) ** 2

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    model.compile("sgd", loss="plain_squared_error")
    by_hand = np.mean((model.predict(x, verbose=0) - x) ** 2)
    assert model.evaluate(x, x, verbose=0) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.slow
def test_sparse_code_reaches_its_rate():
    """1,000 full-batch steps on digits: far below the plateau of the mean image."""
    from sklearn.datasets import load_digits

    from keras_penalties.demo import FullBatches

    x = (load_digits().data / 16.0).astype("float32")
    model = kp.models.SparseAutoencoder()
    model.compile(keras.optimizers.Adam(0.01), loss="half_sum_squared_error")
    model.fit(FullBatches(x, 50), epochs=20, verbose=0)
    mean_image = 0.5 * np.sum((x - x.mean(axis=0)) ** 2) / len(x)
    rebuilt = model.predict(x, batch_size=len(x), verbose=0)
    error = 0.5 * np.sum((x - rebuilt) ** 2) / len(x)
    assert error < 0.1 * mean_image
    means = ops.convert_to_numpy(ops.stop_gradient(model.encode(x))).mean(axis=0)
    np.testing.assert_allclose(means, 0.1, atol=0.01)
