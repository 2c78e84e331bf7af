"""Each private use of Keras is still needed, and still works.

A test that fails here after an update of Keras is good news: the reason for a
work-around is gone.
"""

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp
from keras_penalties import compat

OURS = "keras_penalties>HalfSumSquaredError"


def test_registered_names_are_still_unknown_to_keras_itself():
    @keras.saving.register_keras_serializable("compat")
    class OnlyRegistered(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(y_true - y_pred, axis=-1)

    with pytest.raises(ValueError, match="Could not interpret loss"):
        keras.losses.get("compat>OnlyRegistered")


def test_a_loss_key_is_still_loaded_as_a_class():
    config = keras.saving.deserialize_keras_object({"loss": OURS})
    assert config["loss"] is kp.losses.HalfSumSquaredError
    with pytest.raises(TypeError):
        keras.saving.serialize_keras_object(config["loss"])
    mended = compat._keys_as_configs({"a": OURS, "b": ["mse", OURS], "c": None})
    assert mended["a"] == mended["b"][1]
    assert mended["a"]["registered_name"] == OURS
    assert mended["b"][0] == "mse"
    assert mended["c"] is None
    assert compat._keys_as_configs(mended) == mended


def test_weights_still_come_autocast_in_call():
    seen = {}

    class Reads(layers.Dense):
        def call(self, inputs):
            def dtype():
                return keras.backend.standardize_dtype(
                    ops.convert_to_tensor(self.kernel).dtype
                )

            seen["plain"] = dtype()
            with compat.full_precision():
                seen["full"] = dtype()
            return super().call(inputs)

    Reads(2, dtype="mixed_float16")(np.ones((1, 2), "float32"))
    assert seen == {"plain": "float16", "full": "float32"}


@pytest.mark.skipif(BACKEND != "jax", reason="a fault of Keras on JAX")
def test_a_shared_layers_losses_are_still_dropped_on_jax():
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


def test_the_activity_slot_divides_from_keras_3_14_on():
    layer = layers.Activation("linear", activity_regularizer=keras.regularizers.L1(1.0))
    layer(np.ones((4, 1), "float32"))
    expected = 1.0 if compat._SLOT_DIVIDES else 4.0
    assert float(sum(layer.losses)) == expected
    assert compat._LAYER_CALL is not None


def test_metrics_on_jax_are_still_computed_without_the_layers_weights():
    """Why `latest_mean` hands the traced means over."""
    if BACKEND != "jax":
        pytest.skip("a fault of Keras on JAX")
    layer = kp.layers.ActivityPenalty("l1(1.0)", name="a")
    layer._shown.means[0]._mean = lambda index: layer.sums.value[index]
    model = keras.Sequential([keras.Input((2,)), layer, layers.Dense(1)])
    model.compile("sgd", "mse")
    logs = model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)), return_dict=True)
    assert logs["a_l1"] == 0.0  # 2.0 were right


def test_who_reads_which_tensor_is_still_private():
    """Keras tells which layers a model has, not their calls: why `graph` exists."""
    dense = layers.Dense(2)
    inputs = keras.Input((2,))
    outputs = dense(dense(inputs))
    model = keras.Model(inputs, outputs)
    chain = keras.Sequential([inputs, dense, layers.ReLU()])
    for thing in (model, chain, dense, outputs):
        public = [name for name in dir(thing) if not name.startswith("_")]
        assert not [name for name in public if "node" in name]
    assert not hasattr(chain, "operations")  # as a Functional model has
    for built, operations in ((model, [dense, dense]), (chain, chain.layers)):
        given, nodes, out = compat.graph(built)
        assert [node.operation for node in nodes] == operations
        read = [*given, *(t for node in nodes for t in node.outputs)]
        assert [node.input_tensors for node in nodes] == [[t] for t in read[:-1]]
        assert out == read[-1:]
    assert compat.graph(kp.models.SparseAutoencoder()) is None
