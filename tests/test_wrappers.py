"""A wrapped layer keeps its contract: shapes, masks, dtype, states, other wrappers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp

L = kp.layers
X = np.random.default_rng(0).random((2, 5, 4)).astype("float32")


def total(model, x):
    model.compile("sgd", "mse")
    y = np.zeros_like(model.predict(x, verbose=0))
    logs = model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    return logs["loss"] - float(np.mean((model.predict(x, verbose=0) - y) ** 2))


def ones(units, activation=None):
    return layers.Dense(units, activation, kernel_initializer="ones")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (L.Penalized(ones(3), outputs="l1(0.1)"), 0.1 * 3 * X.sum() / 2),
        (L.Penalized(ones(3), weights={"kernel": "l1(0.1)"}), 0.1 * 12),
        (L.InputGradient(ones(3), "l2(0.1)"), 5 * 0.1 * 4 * 9),
        (L.Contractive(ones(3), 0.1), 5 * 0.1 * 12),
    ],
    ids=["output", "weight", "gradient", "jacobian"],
)
def test_time_distributed_calls_a_layer_once_a_step(layer, expected):
    """A weight's term counts once, and all others once a step."""
    model = keras.Sequential([keras.Input((5, 4)), layers.TimeDistributed(layer)])
    assert model.output_shape == (None, 5, 3)
    assert total(model, X) == pytest.approx(expected, rel=1e-5)


def test_bidirectional_and_rnn_name_the_way_out():
    gru = L.Penalized(layers.GRU(3), outputs="l1(0.1)")
    cell = L.Penalized(layers.GRUCell(3), outputs="l1(0.1)")
    with pytest.raises(ValueError, match=r"Penalized outside.*Bidirectional"):
        layers.Bidirectional(gru)
    with pytest.raises(ValueError, match=r"Penalized outside.*RNN"):
        layers.RNN(cell)


def test_outside_of_a_bidirectional_layer_it_works():
    inner = layers.Bidirectional(layers.GRU(3, name="g"), name="both")
    weights = {"forward_g/gru_cell/kernel": "l1(0.1)"}
    layer = L.Penalized(inner, weights=weights, outputs="l2(0.1)")
    model = keras.Sequential([keras.Input((5, 4)), layer])
    kernel = ops.convert_to_numpy(layer.variable("forward_g/gru_cell/kernel"))
    outputs = model.predict(X, verbose=0)
    expected = 0.1 * np.abs(kernel).sum() + 0.1 * (outputs**2).sum() / 2
    assert total(model, X) == pytest.approx(expected, rel=1e-5)


def test_the_states_of_a_recurrent_layer():
    layer = L.Penalized(layers.LSTM(3, stateful=True), outputs="l1(0.1)")
    plain = layers.LSTM(3, stateful=True)
    models = [
        keras.Sequential([keras.Input(batch_shape=(2, 5, 4)), x])
        for x in (layer, plain)
    ]
    models[1].set_weights(layer.layer.get_weights()[: len(models[1].get_weights())])
    for one in (layer, plain):
        assert one.stateful
        one.reset_states()
    ours, theirs = ([ops.convert_to_numpy(m(X)) for _ in range(2)] for m in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert not np.allclose(ours[0], ours[1])
    layer.reset_state()
    np.testing.assert_allclose(ops.convert_to_numpy(models[0](X)), ours[0], rtol=1e-6)


def test_several_outputs_and_an_initial_state():
    layer = L.Penalized(layers.LSTM(3, return_state=True), outputs="l2(0.1)")
    start = [np.ones((2, 3), "float32")] * 2
    found = layer(X, initial_state=start)
    expected = layer.layer(X, initial_state=start)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
        )


def test_attention_of_several_tensors_is_saved_in_a_model(tmp_path):
    query, memory = keras.Input((5, 4)), keras.Input((3, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    layer = L.Penalized(
        attention, weights={"query/kernel": "l1(0.1)"}, outputs="l2(0.1)"
    )
    model = keras.Model([query, memory], layer(query, memory))
    data = [X, X[:, :3]]
    model.compile("sgd", "mse")
    expected = model.evaluate(data, X, verbose=0, return_dict=True)["loss"]
    kernel = ops.convert_to_numpy(attention.query_dense.kernel)
    out = model.predict(data, verbose=0)
    by_hand = (
        0.1 * np.abs(kernel).sum() + 0.1 * (out**2).sum() / 2 + np.mean((out - X) ** 2)
    )
    assert expected == pytest.approx(by_hand, rel=1e-5)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    logs = again.evaluate(data, X, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_the_mask_that_a_layer_makes_goes_on():
    embedding = layers.Embedding(9, 3, mask_zero=True)
    layer = L.Penalized(embedding, outputs="l1(0.1)")
    out = layer(np.array([[1, 2, 0], [3, 0, 0]]))
    values = ops.convert_to_numpy(out)
    expected = 0.1 * (np.abs(values[0, :2]).sum() + np.abs(values[1, :1]).sum()) / 2
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_the_dtype_of_a_layer_stays():
    for policy in ("float16", "mixed_float16", "bfloat16"):
        layer = L.Penalized(layers.Dense(3, dtype=policy), outputs="l1(0.1)")
        out = layer(X)
        assert keras.backend.standardize_dtype(out.dtype) == layer.layer.compute_dtype
    whole = L.Penalized(layers.Embedding(300, 3), outputs="l1(0.1)")
    assert whole(np.array([[299]])).shape == (1, 1, 3)


def test_a_derivative_in_a_half_float_host_has_the_layers_own_precision():
    start = keras.initializers.Constant(1.0001)
    dense = layers.Dense(1, use_bias=False, kernel_initializer=start, dtype="float32")
    layer = L.InputGradient(dense, "l1(1.0)", dtype="mixed_float16")
    layer(np.ones((1, 2), "float16"))
    assert float(sum(layer.losses)) == pytest.approx(2.0002, rel=1e-6)


class TestFrozen:
    def teacher(self):
        return keras.Sequential(
            [
                keras.Input((4,)),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
                layers.Dense(3),
            ]
        )

    def student(self, teacher):
        x = keras.Input((4,))
        gap = L.AddLoss("mean_squared_error", name="gap")
        frozen = L.Frozen(teacher, name="teacher")
        return keras.Model(x, gap(layers.Dense(3)(x), y_true=frozen(x)))

    def test_training_moves_nothing_in_it_and_draws_nothing(self, tmp_path):
        teacher = self.teacher()
        before, x = teacher.get_weights(), X[:, 0]
        model = self.student(teacher)
        model.trainable = True  # as somebody does who unfreezes all
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(x, epochs=3, verbose=0)
        for old, new in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert [v.path for v in model.trainable_variables if "teacher" in v.path] == []
        assert len(model.trainable_variables) == 2
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        again.compile(keras.optimizers.SGD(0.0))
        values = [again.train_on_batch(x) for _ in range(2)]
        right = np.mean(
            (model.predict(x, verbose=0) - teacher.predict(x, verbose=0)) ** 2
        )
        np.testing.assert_allclose(np.ravel(values), right, rtol=1e-5)
        for old, new in zip(
            before, again.get_layer("teacher").layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(old, new)

    def test_a_gradient_passes_through_it(self):
        from keras_penalties.autodiff import gradient

        frozen = L.Frozen(ones(1))
        slope = gradient(lambda x: ops.sum(frozen(x)), ops.convert_to_tensor(X[:, 0]))
        np.testing.assert_allclose(ops.convert_to_numpy(slope), np.ones((2, 4)))

    def test_a_layer_is_needed(self):
        with pytest.raises(ValueError, match="layer"):
            L.Frozen("teacher")
