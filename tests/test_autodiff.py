"""Derivatives in several threads at once: each is right, and nothing stays replaced."""

from __future__ import annotations

import contextlib
import importlib
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import autodiff, compiling
from keras_penalties.compat import derivatives

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
PATIENCE = 60.0  # seconds, so that a fault fails and does not hang


def foreign():
    """What belongs to the backend, and is the same for all threads."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return {"moments": tf.nn.moments}
    if BACKEND == "torch":
        import torch

        return {
            "layer_norm": torch.nn.functional.layer_norm,
            "attention": torch.nn.functional.scaled_dot_product_attention,
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        }
    import jax

    return {"vjp": jax.vjp, "grad": jax.grad}


def in_threads(*functions):
    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
        return [future.result(PATIENCE) for future in futures]


def test_two_threads_that_overlap_leave_nothing_behind():
    before = foreign()
    first_in, first_out, second_in = (threading.Event() for _ in range(3))
    x = ops.convert_to_tensor(X)

    def first():
        def fn(x):
            first_in.set()
            second_in.wait(PATIENCE)
            return ops.sum(x * x)

        slope = autodiff.gradient(fn, x)
        first_out.set()
        return ops.convert_to_numpy(slope)

    def second():
        def fn(x):
            second_in.set()
            first_out.wait(PATIENCE)
            return ops.sum(x * x * x)

        first_in.wait(PATIENCE)
        return ops.convert_to_numpy(autodiff.gradient(fn, x))

    squares, cubes = in_threads(first, second)
    np.testing.assert_allclose(squares, 2 * X, rtol=1e-6)
    np.testing.assert_allclose(cubes, 3 * X**2, rtol=1e-6)
    assert foreign() == before


@pytest.mark.parametrize("of", ["keras", "torch"])
def test_a_thread_that_takes_no_derivative_notices_nothing(of, monkeypatch):
    if of == "torch" and BACKEND != "torch":
        pytest.skip("a module of torch within a Keras model")
    if of == "keras" and BACKEND == "torch" and not hasattr(ops, "layer_normalization"):
        pytest.skip("before Keras 3.11 this layer has a right derivative on torch")
    normalized = layers.LayerNormalization()
    if of == "torch":
        import torch

        normalized = layers.TorchModuleWrapper(torch.nn.LayerNorm(4))
    normalized(X)
    barrier = threading.Barrier(2)
    by, plain = [], derivatives.moments

    def noted(*args, **kwargs):
        by.append(threading.get_ident())
        return plain(*args, **kwargs)

    monkeypatch.setattr(derivatives, "moments", noted)

    def derives():
        def fn(x):
            barrier.wait(PATIENCE)  # the other thread runs the same layer
            barrier.wait(PATIENCE)
            return ops.sum(normalized(x))

        autodiff.gradient(fn, ops.convert_to_tensor(X))
        return threading.get_ident()

    def looks_on():
        barrier.wait(PATIENCE)
        normalized(ops.convert_to_tensor(X))
        barrier.wait(PATIENCE)

    deriving, _ = in_threads(derives, looks_on)
    assert set(by) == (set() if BACKEND == "jax" else {deriving})


NORMS = {
    "layer": lambda: layers.LayerNormalization(epsilon=0.1),
    "batch": lambda: layers.BatchNormalization(epsilon=0.1),
    "group": lambda: layers.GroupNormalization(1, epsilon=0.1),
}


@pytest.mark.parametrize("whole", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("norm", NORMS)
def test_second_derivatives_in_two_threads_are_as_in_one(norm, whole):
    layer, options = NORMS[norm](), {"training": True} if norm == "batch" else {}
    layer.build(X.shape)
    x = ops.convert_to_tensor(X)

    def second_derivative(meet):
        def outputs(x):
            meet()
            values = layer.stateless_call(
                layer.trainable_variables,
                layer.non_trainable_variables,
                x,
                **options,
            )[0]
            meet()
            return ops.sum(values**3)

        def slope(x):
            return ops.sum(autodiff.gradient(outputs, x) ** 2)

        fn = lambda x: autodiff.gradient(slope, x)  # noqa: E731
        fn = compiling.compiled(fn) if whole else fn
        return ops.convert_to_numpy(fn(x))

    alone = second_derivative(lambda: None)
    barrier = threading.Barrier(2)
    both = in_threads(*[lambda: second_derivative(lambda: barrier.wait(PATIENCE))] * 2)
    for found in both:
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
    assert np.abs(alone).max() > 1e-2


@pytest.mark.skipif(BACKEND != "torch", reason="torch's attention")
@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
def test_our_attention_is_torchs(mask):
    import torch

    rng = np.random.default_rng(1)
    query, key, value = torch.tensor(rng.normal(size=(3, 2, 2, 5, 4)))
    shut = torch.tensor(rng.random((5, 5)) < 0.4)
    shut[0] = True  # nobody to attend to
    given = {
        "none": {},
        "bool": {"attn_mask": ~shut},
        "float": {"attn_mask": torch.tensor(rng.normal(size=(5, 5))), "scale": 0.3},
        "causal": {"is_causal": True},
    }[mask]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, **given
    )
    found = derivatives.attention(query, key, value, **given)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def replaced():
    """The functions of Keras that this package replaces, once, at import."""
    names = {
        "jax": [],
        "tensorflow": ["keras.src.backend.tensorflow.nn:_compute_moments"],
        "torch": [
            "keras.src.ops.nn:_layer_normalization",
            "keras.src.backend.torch.nn:dot_product_attention",
        ],
    }[BACKEND]
    found = {"call": layers.TorchModuleWrapper.call, "add_loss": layers.Layer.add_loss}
    for name in names:
        module, attribute = name.split(":")
        with contextlib.suppress(ImportError, AttributeError):
            found[name] = getattr(importlib.import_module(module), attribute)
    return found | foreign()


def penalised(seed):
    """A model with a penalty on a weight, on an output and on a derivative."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = layers.Dense(3, kernel_regularizer=kp.penalties.L1(0.1))(inputs)
    x = kp.layers.ActivityPenalty("l2(0.1)")(layers.LayerNormalization()(x))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2, "tanh")])
    model = keras.Model(inputs, kp.layers.Contractive(inner, 0.1)(x))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


@pytest.mark.slow
def test_two_trainings_and_a_predict_at_once_are_as_alone():
    """100 rounds: each total equals that of the undisturbed run to rounding."""
    y = np.zeros((5, 2), "float32")
    models, idle = [penalised(seed) for seed in (0, 1)], penalised(2)
    starts = [model.get_weights() for model in models]

    def train(which):
        losses = [models[which].train_on_batch(X, y) for _ in range(3)]
        return np.array([np.ravel(loss)[0] for loss in losses])

    def predict():
        return idle.predict_on_batch(X)

    alone = [train(0), train(1), predict()]
    before = replaced()
    for _ in range(100):
        for model, start in zip(models, starts, strict=True):
            model.set_weights(start)
        found = in_threads(lambda: train(0), lambda: train(1), predict)
        for now, then in zip(found, alone, strict=True):
            np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-6)
    assert replaced() == before
