"""Keras and the backends still have each fault for which `compat` or `autodiff` exists.

A failure here after an update is good news: what a module's docstring names as needless
then can go. On a Keras newer than the newest release, the failure is only reported.
"""

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import compat
from keras_penalties.compat import derivatives

pytestmark = pytest.mark.needless
OURS = "keras_penalties>HalfSumSquaredError"


def on(backend):
    return pytest.mark.skipif(backend != BACKEND, reason=f"a fault on {backend} only")


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


class OnlyRegisteredMetric(keras.metrics.Mean):
    pass


def test_registered_names_are_unknown_to_keras_itself():
    @keras.saving.register_keras_serializable("compat")
    class OnlyRegistered(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(y_true - y_pred, axis=-1)

    with pytest.raises(ValueError, match="Could not interpret loss"):
        keras.losses.get("compat>OnlyRegistered")
    keras.saving.register_keras_serializable("compat")(OnlyRegisteredMetric)
    with pytest.raises(ValueError, match="Could not interpret metric"):
        keras.metrics.get("compat>OnlyRegisteredMetric")


def test_a_loss_key_is_loaded_as_a_class():
    config = keras.saving.deserialize_keras_object({"loss": OURS})
    assert config["loss"] is kp.losses.HalfSumSquaredError
    with pytest.raises(TypeError):
        keras.saving.serialize_keras_object(config["loss"])


def test_weights_come_autocast_in_call():
    seen = []

    class Reads(layers.Dense):
        def call(self, inputs):
            kernel = ops.convert_to_tensor(self.kernel)
            seen.append(keras.backend.standardize_dtype(kernel.dtype))
            return super().call(inputs)

    Reads(2, dtype="mixed_float16")(np.ones((1, 2), "float32"))
    assert seen == ["float16"]


@on("jax")
def test_a_shared_layers_losses_are_dropped_on_jax():
    class AddsOne(layers.Layer):
        def call(self, inputs):
            self.add_loss(ops.sum(0.0 * inputs) + 1.0)
            return inputs

    layer = AddsOne()
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layer(layer(layer(inputs))))
    model.compile("sgd", "mse")
    total = model.evaluate(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    assert total == 1.0  # 3.0 were right


@on("jax")
def test_metrics_on_jax_are_computed_without_the_layers_weights():
    """Why `TermLogs` hands the traced means over."""
    layer = kp.layers.ActivityPenalty("l1(1.0)", name="a")
    layer.logs.means[0]._read = lambda: layer.sums.value[0]
    model = keras.Sequential([keras.Input((2,)), layer, layers.Dense(1)])
    model.compile("sgd", "mse")
    logs = model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)), return_dict=True)
    assert logs["a_l1"] == 0.0  # 2.0 were right


@on("jax")
def test_weights_are_away_within_an_epoch_on_jax():
    dense = layers.Dense(1)
    model = keras.Sequential([keras.Input((2,)), dense])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    values = []

    def look(batch, logs):
        with pytest.raises(TypeError):
            ops.convert_to_numpy(dense.kernel)
        compat.sync_state(model)
        values.append(ops.convert_to_numpy(dense.kernel))

    looks = [keras.callbacks.LambdaCallback(on_train_batch_end=look)]
    model.fit(np.ones((4, 2)), np.ones(4), batch_size=2, verbose=0, callbacks=looks)
    assert np.all(values[0] != values[1])


@pytest.mark.skipif(BACKEND == "jax", reason="there a scope says what is collected")
def test_predict_computes_losses_that_nobody_reads():
    wanted = []

    class Asks(layers.Layer):
        def call(self, inputs):
            wanted.append(compat.losses_wanted())
            return inputs

    class Plain(keras.Model):
        predict_step = keras.Model.predict_step.__wrapped__

    for cls, expected in ((keras.Model, False), (Plain, True)):
        inputs = keras.Input((1,))
        model = cls(inputs, Asks()(inputs))
        wanted.clear()
        model.predict(np.ones((2, 1)), verbose=0)
        assert set(wanted) == {expected}


def test_masks_are_private():
    found = [keras, keras.backend, keras.ops, keras.utils, keras.tree]
    assert not [name for thing in found for name in public(thing) if "mask" in name]


@on("tensorflow")
def test_tf_distribute_divides_a_loss_twice(fresh_process):
    from virtual_devices import TWO_CPUS

    printed = fresh_process(
        TWO_CPUS
        + """
import keras, numpy as np

mse = keras.losses.MeanSquaredError()

class AddsOne(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(mse(inputs, 0.0 * inputs))
        return inputs

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((1,)), AddsOne()])
    model.compile("sgd", "mse")
print("TOTAL", model.evaluate(np.ones((4, 1)), np.ones((4, 1)), verbose=0))
"""
    )
    assert printed.splitlines()[-1] == "TOTAL 0.5"  # 1.0 were right


def test_what_a_layer_holds_is_private():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(1)
            self.own = self.add_weight(shape=(), name="own")

        def call(self, inputs):
            return self.own * self.inner(inputs)

    outer = Outer()
    outer(np.ones((1, 1), "float32"))
    assert len(outer.weights) == 3
    assert not {n for n in public(outer) if "layer" in n or "own_" in n} - {
        "save_own_variables",
        "load_own_variables",
    }


def test_an_optimizers_parts_are_private():
    parts = public(keras.optimizers.Adam())
    assert not {name for name in parts if "index" in name or "inner" in name}


@on("torch")
def test_an_optimizer_saved_on_torch_names_its_private_class():
    config = keras.saving.serialize_keras_object(keras.optimizers.SGD())
    assert config["module"].startswith("keras.src.backend.torch")


def test_who_reads_which_tensor_is_private():
    """Keras tells which layers a model has, not their calls: why `graph` exists."""
    dense = layers.Dense(2)
    inputs = keras.Input((2,))
    outputs = dense(dense(inputs))
    model = keras.Model(inputs, outputs)
    chain = keras.Sequential([inputs, dense, layers.ReLU()])
    for thing in (model, chain, dense, outputs):
        assert not [name for name in public(thing) if "node" in name]
    assert not hasattr(chain, "operations")  # as a Functional model has


def test_an_output_is_named_by_its_last_layer():
    """Why `output_names` is replaced: else a host at the output names all outputs."""

    class PassesOn(layers.Layer):
        def call(self, inputs):
            return inputs

    x = keras.Input((2,))
    both = [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)]
    model = keras.Model(x, PassesOn(name="last")(both))
    assert model.output_names == ["last", "last"]


def second_derivative(fn):
    """Of the sum of `fn` at a point, twice in one direction, by the backend alone."""
    x = np.array([[0.5, -1.0, 2.0]])
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(fn(x))
            slope = inner.gradient(y, x)[0, 0]
        return outer.gradient(slope, x).numpy()
    import torch

    x = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(fn(x).sum(), x, create_graph=True)
    return torch.autograd.grad(slope[0, 0], x)[0].numpy()


@on("tensorflow")
def test_the_second_derivative_of_moments_is_wrong_on_tensorflow():
    import tensorflow as tf

    plain = second_derivative(lambda x: tf.nn.moments(x, [1])[1])
    ours = second_derivative(lambda x: derivatives.moments(x, [1])[1])
    np.testing.assert_allclose(ours, [[4 / 9, -2 / 9, -2 / 9]], atol=1e-6)
    np.testing.assert_allclose(plain, [[2 / 3, 0.0, 0.0]], atol=1e-6)


@on("torch")
def test_torchs_fast_attention_has_no_second_derivative():
    import torch

    def attention(x):
        x = x.reshape(1, 1, 1, 3).float()
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    with pytest.raises(RuntimeError, match="derivative"):
        second_derivative(attention)


@on("torch")
def test_the_third_derivative_of_torchs_layer_norm_is_wrong():
    import torch

    def third(layer_norm):
        def slope(x):
            y = (layer_norm(x, (3,)) ** 3).sum()
            return torch.autograd.grad(y, x, create_graph=True)[0] ** 2

        return second_derivative(slope)

    plain = third(torch.nn.functional.layer_norm)
    ours = third(derivatives.layer_norm)
    assert not np.allclose(plain, ours, rtol=1e-2)


def test_what_a_model_is_compiled_with_is_private():
    """Else `compat.losses` could read the losses, their weights and their outputs."""
    inputs = keras.Input((2,))
    outputs = {"a": layers.Dense(1)(inputs), "b": layers.Dense(1)(inputs)}
    model = keras.Model(inputs, outputs)
    both = {"a": "mse", "b": "mse"}
    model.compile("sgd", both, loss_weights={"a": 0.5, "b": 2.0})
    model.train_on_batch(np.ones((1, 2)), {"a": np.ones((1, 1)), "b": np.ones((1, 1))})
    assert not {n for n in public(model) if "loss_weight" in n or "compile_loss" in n}
    assert compat.compiled_losses(model)[1].weight == 2.0
    dense = layers.Dense(1, activity_regularizer="l1")
    assert {n for n in public(dense) if "own" in n and "loss" in n} == set()
