"""compact and sparsity: what goes, what stays and why, layer kind by layer kind."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp
from keras_penalties.compaction import Plan

RNG = np.random.default_rng


def filled(model, scale=0.4):
    """Random weights, positive variances."""
    rng = RNG(3)
    for variable in model.weights:
        if variable.dtype.startswith("float"):
            values = rng.normal(size=variable.shape) * scale
            variable.assign(abs(values) + 0.5 if "varia" in variable.path else values)
    return model


def zero(variable, *at):
    """Set some entries of a weight to zero: `zero(kernel, ..., [0, 2])`."""
    values = np.array(ops.convert_to_numpy(variable))
    values[at] = 0
    variable.assign(values)


def built(*stack, shape):
    return filled(keras.Sequential([keras.Input(shape), *stack]))


def same_outputs(model, small, shape=None, tolerance=1e-5):
    rng = RNG(5)
    x = [rng.normal(size=(3, *(shape or t.shape[1:]))) for t in model.inputs]
    x = [a.astype("float32") for a in x]
    expected, got = (
        keras.tree.flatten(m(x if len(x) > 1 else x[0])) for m in (model, small)
    )
    for a, b in zip(expected, got, strict=True):
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


def sizes(model):
    return {row.layer: row.after for row in Plan(model).rows}


def kinds(table):
    """All; two of three are slow on JAX, which compiles each operation and shape."""
    slow = [pytest.mark.slow] if BACKEND == "jax" else []
    return [pytest.param(k, marks=slow if i % 3 else []) for i, k in enumerate(table)]


# One kind of layer between two that are followed.

IMAGE = (6, 6, 2)
BETWEEN = {
    "max_pool": (IMAGE, lambda: layers.MaxPooling2D(2)),
    "average_pool_same": (IMAGE, lambda: layers.AveragePooling2D(3, 1, padding="same")),
    "max_pool_same": (IMAGE, lambda: layers.MaxPooling2D(3, 1, padding="same")),
    "global_average": (IMAGE, lambda: layers.GlobalAveragePooling2D()),
    "global_max": (IMAGE, lambda: layers.GlobalMaxPooling2D(keepdims=True)),
    "flatten": (IMAGE, lambda: layers.Flatten()),
    "reshape": (IMAGE, lambda: layers.Reshape((-1, 4))),
    "reshape_wide": (IMAGE, lambda: layers.Reshape((6, 24))),
    "up": (IMAGE, lambda: layers.UpSampling2D(2)),
    "crop": (IMAGE, lambda: layers.Cropping2D(1)),
    "norm": (IMAGE, lambda: layers.BatchNormalization()),
    "norm_bare": (IMAGE, lambda: layers.BatchNormalization(scale=False, center=False)),
    "prelu": (IMAGE, lambda: layers.PReLU(shared_axes=(1, 2))),
    "leaky": (IMAGE, lambda: layers.LeakyReLU(0.2)),
    "gelu": (IMAGE, lambda: layers.Activation("gelu")),
    "depthwise_valid": (IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "noise": (IMAGE, lambda: layers.GaussianNoise(0.1)),
    "spatial_dropout": (IMAGE, lambda: layers.SpatialDropout2D(0.5)),
    "nothing": (IMAGE, lambda: layers.Identity()),
    "activity": (IMAGE, lambda: kp.layers.ActivityPenalty("kl_sparsity", momentum=0.9)),
    "bias_unit": (IMAGE, lambda: kp.layers.BiasUnit()),
}


@pytest.mark.parametrize("kind", kinds(BETWEEN))
def test_constants_pass_through(kind):
    """Filters of weight zero, whose constants the bias of a Dense takes over."""
    shape, between = BETWEEN[kind]
    first = layers.Conv2D(4, 3, padding="same", name="first")
    model = built(first, between(), layers.Dense(3, name="last"), shape=shape)
    zero(first.kernel, ..., [0, 2])
    small = kp.compact(model)
    assert small.get_layer("first").filters == 2
    same_outputs(model, small)


LARGE, SERIES, SOLID = (12, 12, 2), (16, 2), (6, 6, 6, 2)
CONVOLUTIONS = {
    "conv1d": (SERIES, lambda: layers.Conv1D(4, 3, padding="causal")),
    "conv1d_valid": (SERIES, lambda: layers.Conv1D(4, 3, 2)),
    "conv2d": (LARGE, lambda: layers.Conv2D(4, 3, padding="same")),
    "conv2d_dilated": (LARGE, lambda: layers.Conv2D(4, 2, dilation_rate=2)),
    "conv2d_no_bias": (LARGE, lambda: layers.Conv2D(4, 3, use_bias=False)),
    "conv2d_1x1": (LARGE, lambda: layers.Conv2D(4, 1, padding="same")),
    "conv3d": (SOLID, lambda: layers.Conv3D(4, 2, padding="same")),
    "transpose1d": (SERIES, lambda: layers.Conv1DTranspose(4, 3, 2)),
    "transpose2d": (LARGE, lambda: layers.Conv2DTranspose(4, 3, 2, padding="same")),
    "transpose3d": (SOLID, lambda: layers.Conv3DTranspose(4, 2)),
    "separable1d": (SERIES, lambda: layers.SeparableConv1D(4, 3)),
    "separable2d": (LARGE, lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2)),
    "dense": ((5, 2), lambda: layers.Dense(4)),
    "dense_no_bias": ((5, 2), lambda: layers.Dense(4, use_bias=False)),
}


@pytest.mark.parametrize("kind", kinds(CONVOLUTIONS))
def test_each_linear_layer_reads_and_makes_channels(kind):
    """The same kind three times: the middle one reads cut inputs and is cut itself."""
    shape, make = CONVOLUTIONS[kind]
    stack = [make() for _ in range(3)]
    model = built(*stack, shape=shape)
    for layer in stack[:2]:
        kernels = [w for w in layer.weights if len(w.shape) > 1]
        axis = -2 if "transpose" in kind else -1
        at = (..., [0, 1], slice(None)) if axis == -2 else (..., [0, 1])
        zero(kernels[-1], *at)
        if layer.use_bias:
            zero(layer.bias, [0, 1])
    small = kp.compact(model)
    for layer in small.layers[:2]:
        assert getattr(layer, "filters", None) or layer.units == 2
        assert layer.output.shape[-1] == 2
    same_outputs(model, small)


def test_a_filter_that_nobody_reads_goes():
    first, second = layers.Conv2D(4, 3), layers.Conv2D(3, 3)
    model = built(first, layers.ReLU(), second, shape=IMAGE)
    zero(second.kernel, slice(None), slice(None), [1, 3])
    small = kp.compact(model)
    assert small.layers[0].filters == 2
    same_outputs(model, small)


def test_what_is_read_only_by_the_dead_goes_too():
    a, b, c = layers.Dense(4, "tanh"), layers.Dense(4, "tanh"), layers.Dense(2)
    model = built(a, b, c, shape=(3,))
    zero(c.kernel, [0, 1])
    zero(b.kernel, 0, [2, 3])
    small = kp.compact(model)
    assert [layer.units for layer in small.layers] == [3, 2, 2]
    same_outputs(model, small)


@pytest.mark.parametrize("bias", [True, False])
def test_one_constant_stands_for_all_where_no_bias_can(bias):
    """Zeros beside the image make a constant vary: one channel of them stays."""
    first = layers.Conv2D(6, 3, activation="sigmoid")
    second = layers.Conv2D(3, 3, padding="same", use_bias=bias)
    model = built(first, second, shape=IMAGE)
    zero(first.kernel, ..., [0, 2, 5])
    small = kp.compact(model)
    assert small.layers[0].filters == 4
    same_outputs(model, small)


def test_gamma_of_zero_makes_a_constant():
    conv, norm = layers.Conv2D(4, 3), layers.BatchNormalization()
    model = built(conv, norm, layers.ReLU(), layers.Conv2D(3, 2), shape=IMAGE)
    zero(norm.gamma, [1, 2])
    small = kp.compact(model)
    assert small.layers[0].filters == 2
    assert small.layers[1].moving_mean.shape == (2,)
    same_outputs(model, small)


def test_slopes_that_differ_from_place_to_place_make_a_constant_vary():
    first, prelu = layers.Conv2D(4, 1), layers.PReLU()
    model = built(first, prelu, layers.Flatten(), layers.Dense(2), shape=IMAGE)
    zero(first.kernel, ...)
    first.bias.assign([1.0, -1.0, 0.0, 2.0])
    small = kp.compact(model)
    assert small.layers[0].filters == 1
    assert float(ops.convert_to_numpy(small.layers[0].bias)[0]) == -1.0
    same_outputs(model, small)


def test_embedding_columns():
    table = layers.Embedding(7, 4)
    model = filled(
        keras.Sequential([keras.Input((5,), dtype="int32"), table, layers.Dense(2)])
    )
    zero(table.embeddings, slice(None), [0, 3])
    small = kp.compact(model)
    assert small.layers[0].output_dim == 2
    x = np.array([[0, 1, 2, 3, 6]])
    got, expected = (ops.convert_to_numpy(m(x)) for m in (small, model))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_reshape_into_an_image():
    dense = layers.Dense(3 * 3 * 4, "relu")
    model = built(
        dense, layers.Reshape((3, 3, 4)), layers.Conv2DTranspose(2, 3), shape=(5,)
    )
    zero(dense.kernel, slice(None), slice(1, None, 4))
    zero(dense.bias, slice(1, None, 4))
    small = kp.compact(model)
    assert small.layers[0].units == 27
    assert small.layers[1].target_shape == (3, 3, 3)
    same_outputs(model, small)


# Joints.


def two_branches(join, zeros_a, zeros_b):
    x = keras.Input(IMAGE)
    a, b = layers.Conv2D(4, 1, name="a"), layers.Conv2D(4, 1, name="b")
    out = layers.Conv2D(2, 1, name="out")(join([a(x), b(x)]))
    model = filled(keras.Model(x, out))
    zero(a.kernel, ..., zeros_a)
    zero(b.kernel, ..., zeros_b)
    return model


@pytest.mark.parametrize("name", ["Add", "Subtract", "Average", "Maximum", "Minimum"])
def test_a_joint_loses_what_all_branches_lack(name):
    model = two_branches(getattr(layers, name)(), [0, 1, 2], [1, 2, 3])
    small = kp.compact(model)
    assert [small.get_layer(n).filters for n in "ab"] == [2, 2]
    same_outputs(model, small)


def test_a_product_loses_what_one_branch_lacks():
    model = two_branches(layers.Multiply(), [0, 1], [3])
    for name, channels in (("a", [0, 1]), ("b", [3])):
        zero(model.get_layer(name).bias, channels)
    small = kp.compact(model)
    assert [small.get_layer(n).filters for n in "ab"] == [1, 1]
    same_outputs(model, small)


def test_concatenated_branches_are_cut_each_by_itself():
    model = two_branches(layers.Concatenate(), [0, 1, 2], [3])
    small = kp.compact(model)
    assert [small.get_layer(n).filters for n in "ab"] == [1, 3]
    same_outputs(model, small)


def test_channels_first():
    if BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no such convolutions on a CPU")
    kwargs = {"data_format": "channels_first"}
    first = layers.Conv2D(4, 3, **kwargs)
    stack = [
        first,
        layers.BatchNormalization(axis=1),
        layers.MaxPooling2D(2, **kwargs),
        layers.Conv2D(3, 1, **kwargs),
        layers.Flatten(**kwargs),
        layers.Dense(2),
    ]
    model = built(*stack, shape=(2, 6, 6))
    zero(first.kernel, ..., [0, 2])
    small = kp.compact(model)
    assert small.layers[0].filters == 2
    same_outputs(model, small)


# Layers that are used more than once.


def shared(between):
    """A Dense used twice, with zero units, on two inputs."""
    layer = layers.Dense(5, "tanh", name="shared")
    a, b = keras.Input((3,)), keras.Input((3,))
    left, right = between(layer(a)), layer(b)
    heads = layers.Dense(2)(left), layers.Dense(2)(right)
    model = filled(keras.Model([a, b], heads))
    zero(layer.kernel, slice(None), [1, 4])
    return model


def test_a_shared_layer_is_cut_once():
    model = shared(lambda x: x)
    small = kp.compact(model)
    assert small.get_layer("shared").units == 3
    assert len(small.weights) == len(model.weights)
    same_outputs(model, small)


def test_a_shared_layer_stays_whole_if_one_use_needs_it():
    model = shared(layers.Softmax())
    small = Plan(model).apply()
    assert small.get_layer("shared").units == 5
    same_outputs(model, small)


def test_a_shared_reader_keeps_constants_that_differ():
    """Its one bias can't take over two different constants."""
    x = keras.Input((3,))
    a, b = layers.Dense(4), layers.Dense(4)
    reader = layers.Dense(2, name="reader")
    model = filled(keras.Model(x, [reader(a(x)), reader(b(x))]))
    for layer in (a, b):
        zero(layer.kernel, slice(None), [0, 1])
        bias = np.array(ops.convert_to_numpy(layer.bias))
        bias[0] = 0.5  # the same constant in both
        layer.bias.assign(bias)
    assert sizes(model)["reader"] == 2
    small = kp.compact(model)
    assert [small.get_layer(n.name).units for n in (a, b)] == [3, 3]
    same_outputs(model, small)


def test_nested_models_are_cut_inside():
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    inner_input = keras.Input(IMAGE)
    inner = keras.Model(
        inner_input,
        layers.BatchNormalization(name="norm")(conv(inner_input)),
        name="in",
    )
    block = keras.Sequential([layers.ReLU(), layers.Conv2D(4, 1, name="c")], name="seq")
    x = keras.Input(IMAGE)
    y = inner(x)
    model = filled(keras.Model(x, layers.Dense(2)(block(block(y)))))
    zero(conv.kernel, ..., [0, 3])
    zero(block.get_layer("c").kernel, ..., [0, 3])
    for weight in (block.get_layer("c").bias, *inner.get_layer("norm").weights[1:2]):
        zero(weight, [0, 3])
    norm = inner.get_layer("norm")
    norm.moving_mean.assign(conv.bias)
    small = kp.compact(model)
    assert small.get_layer("in").get_layer("conv").filters == 2
    assert small.get_layer("in").get_layer("norm").gamma.shape == (2,)
    assert small.get_layer("seq").get_layer("c").filters == 2
    same_outputs(model, small)


# What is kept whole.


class Odd(layers.Layer):
    def call(self, x):
        return ops.roll(x, 1, axis=-1)


class SelfAttention(layers.MultiHeadAttention):
    def call(self, x):
        return super().call(x, x)

    def build(self, shape):
        super().build(shape, shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


UNKNOWN = {
    "custom": Odd,
    "layer_norm": layers.LayerNormalization,
    "softmax": layers.Softmax,
    "attention": lambda: SelfAttention(2, 3),
    "recurrent": lambda: layers.GRU(4, return_sequences=True),
    "wrapper": lambda: layers.TimeDistributed(layers.Dense(4)),
    "grouped": lambda: layers.Conv1D(4, 1, groups=2),
    "several": lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
    "axis": lambda: layers.BatchNormalization(axis=1),
}


@pytest.mark.parametrize("kind", kinds(UNKNOWN))
def test_what_cannot_be_followed_stays_and_is_told(kind):
    first = layers.Dense(4, name="first")
    last = layers.Dense(3, "relu", name="last")
    stack = [first, UNKNOWN[kind](), last, layers.Dense(1)]
    model = built(*stack, shape=(5, 2))
    zero(first.kernel, slice(None), [0, 2])
    zero(last.kernel, slice(None), [1])
    with pytest.warns(UserWarning, match="2 of 'first'"):
        small = kp.compact(model)
    assert (small.layers[0].units, small.layers[2].units) == (4, 2)
    same_outputs(model, small)


def lora():
    layer = layers.Dense(4)
    layer.build((None, 3))
    layer.enable_lora(1)
    return layer


def regularized(penalty):
    return layers.Dense(4, kernel_regularizer=penalty)


BOUND = {
    "lora": lora,
    "initializer": lambda: layers.Dense(
        4, kernel_initializer=keras.initializers.Constant(np.ones((3, 4)))
    ),
    "reference": lambda: regularized(kp.penalties.ToReference(0.1, np.ones((3, 4)))),
    "blocks": lambda: regularized(
        kp.penalties.Grouped(kp.penalties.L1(0.1), block=[3, 2])
    ),
    "groups": lambda: kp.layers.Penalized(
        layers.Dense(4),
        {"kernel": kp.penalties.Grouped(kp.penalties.L1(0.1), groups=[[0, 1], [9]])},
    ),
}


@pytest.mark.parametrize("kind", BOUND)
def test_a_layer_bound_to_its_shape_stays(kind):
    layer = BOUND[kind]()
    model = built(layer, layers.Dense(2), shape=(3,))
    for weight in layer.weights:
        if len(weight.shape) == 2:
            zero(weight, slice(None), [0])
    assert sizes(model)[layer.name] == 4
    same_outputs(model, Plan(model).apply())


def test_a_layer_whose_penalty_fits_every_shape_is_cut():
    penalty = kp.penalties.Grouped(kp.penalties.L1(0.1), axis=[-1])
    layer = regularized(penalty)
    model = built(layer, layers.Dense(2), shape=(3,))
    zero(layer.kernel, slice(None), [0])
    small = kp.compact(model)
    assert small.layers[0].units == 3
    assert small.layers[0].kernel_regularizer == penalty


def test_outputs_and_dead_layers_keep_their_units():
    first, last = layers.Dense(3), layers.Dense(2)
    model = built(first, last, shape=(4,))
    zero(first.kernel, ...)
    zero(last.kernel, slice(None), [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        small = kp.compact(model)
    assert [layer.units for layer in small.layers] == [1, 2]
    same_outputs(model, small)


def test_subclassed_and_unbuilt_models_are_refused():
    for model in (
        kp.models.SparseAutoencoder(),
        keras.Sequential([layers.Dense(2)]),
        layers.Dense(2),
    ):
        with pytest.raises(ValueError, match="Functional or Sequential"):
            kp.compact(model)


# The new model is whole: names, weights, compile state, fit, save.


def trained():
    inputs = keras.Input((4,), name="features")
    hidden = kp.layers.Penalized(
        layers.Dense(6, "relu", name="hidden"), {"kernel": "l2(0.01)"}, name="wrapped"
    )
    frozen = layers.Dense(3, name="frozen", trainable=False)
    outputs = layers.Dense(1, name="out")(frozen(hidden(inputs)))
    model = filled(keras.Model(inputs, outputs, name="net"))
    zero(hidden.layer.kernel, slice(None), [0, 5])
    proximal = kp.optimizers.Proximal("adam", {"out/kernel": "l1(0.01)"})
    model.compile(proximal, loss="half_sum_squared_error", metrics=["mae"])
    return model


@pytest.mark.slow_on_tensorflow
def test_names_and_compile_state_are_kept_and_training_goes_on(tmp_path):
    model = trained()
    x = RNG(0).normal(size=(8, 4)).astype("float32")
    y = x[:, :1]
    model.fit(x, y, epochs=1, verbose=0)
    zero(model.get_layer("wrapped").layer.kernel, slice(None), [0, 5])
    small = kp.compact(model)
    assert type(small) is type(model)
    assert small.name == "net"
    assert [v.path for v in small.weights] == [v.path for v in model.weights]
    assert [v.path for v in small.trainable_weights] == [
        v.path for v in model.trainable_weights
    ]
    assert small.get_layer("wrapped").layer.units == 4
    np.testing.assert_allclose(
        small.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-5
    )
    assert isinstance(small.optimizer, kp.optimizers.Proximal)
    assert small.optimizer is not model.optimizer
    assert int(ops.convert_to_numpy(small.optimizer.iterations)) == 0
    before = [ops.convert_to_numpy(w).copy() for w in model.weights]
    small.fit(x, y, epochs=2, verbose=0)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras")
    same_outputs(small, again, tolerance=0)
    again.fit(x, y, epochs=1, verbose=0)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras exports no SavedModel on torch")
def test_it_exports(tmp_path):
    tf = pytest.importorskip("tensorflow")  # which writes it for JAX too
    small = kp.compact(trained())
    small.export(str(tmp_path / "saved"), verbose=False)

    x = RNG(0).normal(size=(3, 4)).astype("float32")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    served = loaded.serve(x)
    expected = ops.convert_to_numpy(small(x))
    np.testing.assert_allclose(np.asarray(served), expected, rtol=1e-5, atol=1e-6)


def test_a_frozen_model_and_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    first = layers.Dense(4, "relu")
    model = built(first, layers.Dense(2), shape=(3,))
    model.trainable = False
    zero(first.kernel, slice(None), [0])
    small = kp.compact(model)
    assert small.layers[0].units == 3
    assert small.layers[0].compute_dtype == "float16"
    assert not small.trainable_weights
    same_outputs(model, small, tolerance=2e-3)  # of float16


def test_multiple_inputs_and_outputs_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    dense = layers.Dense(4, name="dense")
    joined = layers.Add()([dense(a), dense(b)])
    heads = {"p": layers.Dense(1, name="p")(joined), "q": layers.Dense(2)(joined)}
    model = filled(keras.Model({"a": a, "b": b}, heads))
    zero(dense.kernel, slice(None), [0, 1])
    small = kp.compact(model)
    assert small.get_layer("dense").units == 2
    x = {name: RNG(i).normal(size=(2, 3)) for i, name in enumerate("ab")}
    got, expected = small(x), model(x)
    assert set(got) == {"p", "q"}
    for name in got:
        values = [ops.convert_to_numpy(t[name]) for t in (got, expected)]
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)


# sparsity


def test_sparsity_by_hand():
    conv, dense = layers.Conv2D(4, 3, name="conv"), layers.Dense(2, name="dense")
    model = built(conv, layers.Flatten(), dense, shape=(5, 5, 1))
    zero(conv.kernel, ..., [0])
    found = kp.sparsity(model)
    kernel = found.weights[0]
    assert (kernel.zeros, kernel.size, kernel.zero_slices) == (9, 36, (0, 0, 0, 1))
    assert found.parameters == 36 + 4 + 36 * 2 + 2
    assert found.compact_parameters == kp.compact(model).count_params()
    assert found.flops == 2 * (36 * 9 + 72)
    assert found.compact_flops == 2 * (27 * 9 + 54)
    assert "25.0%" in str(found)


def test_sparsity_of_what_compact_does_not_know():
    model = kp.models.SparseAutoencoder()
    model.build((None, 4))
    found = kp.sparsity(model)
    assert found.parameters == sum(int(np.prod(w.shape)) for w in model.weights)
    assert found.flops is found.compact_parameters is None
    sequence = built(layers.LSTM(2, name="lstm"), layers.Dense(1), shape=(3, 2))
    assert kp.sparsity(sequence).not_counted == ("lstm",)


# What the warnings and the table say.


def warned(model):
    with pytest.warns(UserWarning, match="Channels that stay") as caught:
        kp.compact(model)
    (message,) = {str(w.message) for w in caught if "stay" in str(w.message)}
    return message


def test_a_model_from_which_nothing_is_removed_is_told_with_the_reasons():
    model = built(layers.Dense(4, "relu"), layers.Dense(2), shape=(3,))
    message = warned(model)
    assert message.startswith(
        "`compact` removed nothing. Channels that stay: 4 because a channel of its "
        "group varies, and a layer reads it; 2 because it is an output of the model."
    )
    assert "kp.compaction.Plan(model)" in message


def test_the_reason_for_nothing_removed_is_that_of_most_channels():
    first, norm = layers.Dense(9, name="first"), layers.LayerNormalization(name="norm")
    model = built(first, norm, layers.Dense(2), shape=(3,))
    zero(first.kernel, slice(None), [0])
    message = warned(model)
    assert (
        "Channels that stay: 18 because norm normalises over the channels; 2" in message
    )
    assert "Channels that stay although they are constant: 1 of 'first'" in message


def test_a_warning_is_short_whatever_the_model():
    stack = []
    for i in range(40):
        stack += [layers.Dense(2, name=f"dense_{i}"), layers.LayerNormalization()]
    model = built(*stack, layers.Dense(1), shape=(2,))
    for layer in model.layers[:-1:2]:
        zero(layer.kernel, slice(None), [0])
    assert len(warned(model)) <= 2000


def test_what_comes_back_has_types():
    model = built(layers.Dense(4), layers.Dense(2), shape=(3,))
    plan = Plan(model)
    assert plan.removes_nothing
    assert plan._repr_html_().count("<tr>") == len(str(plan).splitlines()) == 3
    assert {type(row).__name__ for row in plan.rows} == {"Row"}
    assert isinstance(plan.apply(), keras.Model)
    found = kp.sparsity(model)
    assert isinstance(found, kp.compaction.Sparsity)
    assert all(isinstance(row.why, str) for row in plan.rows)
