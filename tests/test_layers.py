"""The layers that host penalties: totals by hand, logs, sharing, precision."""

import warnings

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops
from keras.optimizers.schedules import PolynomialDecay

import keras_penalties as kp

RNG = np.random.default_rng(0)
X = RNG.random((20, 6)).astype("float32")


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def wide(variable):
    return ops.convert_to_numpy(variable).astype("float64")


def kl(x, rate):
    q = x.mean(axis=tuple(range(x.ndim - 1)))
    return np.sum(rate * np.log(rate / q) + (1 - rate) * np.log((1 - rate) / (1 - q)))


def six_term_model():
    inputs = keras.Input((6,))
    encoder = layers.Dense(4, activation="sigmoid", name="encoder")
    x = kp.layers.Penalized(encoder, weights={"kernel": "l2(0.05) + l1(0.01)"})(inputs)
    x = kp.layers.ActivityPenalty("kl_sparsity(0.3, rate=0.2)", name="code")(x)
    x = kp.layers.ActivityPenalty("l1(0.01)", name="act")(x)
    decoder = layers.Dense(6, activation="sigmoid", name="decoder")
    weights = {"kernel": kp.penalties.L2(0.05)}
    x = kp.layers.Penalized(decoder, weights=weights, outputs="l2(0.1)")(x)
    model = keras.Model(inputs, x)
    model.compile("adam", loss="half_sum_squared_error")
    return model


def terms_by_hand(model, x):
    w1, b1 = map(wide, model.get_layer("penalized_encoder").layer.weights)
    w2, b2 = map(wide, model.get_layer("penalized_decoder").layer.weights)
    hidden = sigmoid(x @ w1 + b1)
    output = sigmoid(hidden @ w2 + b2)
    return {
        "encoder_kernel_l2": 0.05 * np.sum(w1**2),
        "encoder_kernel_l1": 0.01 * np.sum(abs(w1)),
        "code_kl_sparsity": 0.3 * kl(hidden, 0.2),
        "act_l1": 0.01 * np.sum(abs(hidden)) / len(x),
        "decoder_kernel_l2": 0.05 * np.sum(w2**2),
        "decoder_output_l2": 0.1 * np.sum(output**2) / len(x),
        "data": 0.5 * np.sum((x - output) ** 2) / len(x),
    }


def assert_logs_equal(logs, by_hand, prefix=""):
    for name, value in by_hand.items():
        if name != "data":
            assert logs[prefix + name] == pytest.approx(value, rel=2e-5), name
    total = sum(by_hand.values())
    assert logs[f"{prefix}loss"] == pytest.approx(total, rel=2e-5)


class TestLogs:
    def test_evaluate_and_train_on_batch_show_each_term(self):
        model = six_term_model()
        by_hand = terms_by_hand(model, X)
        logs = model.evaluate(X, X, batch_size=20, verbose=0, return_dict=True)
        assert_logs_equal(logs, by_hand)
        assert_logs_equal(model.train_on_batch(X, X, return_dict=True), by_hand)

    def test_history_has_training_and_validation(self):
        model = six_term_model()
        history = model.fit(
            X, X, validation_data=(X, X), batch_size=20, epochs=2, verbose=0
        ).history
        validated = {name: values[-1] for name, values in history.items()}
        assert_logs_equal(validated, terms_by_hand(model, X), prefix="val_")
        terms = [n for n in terms_by_hand(model, X) if n != "data"]
        assert {*terms, "loss"} | {f"val_{n}" for n in [*terms, "loss"]} == set(history)

    def test_batches_of_unequal_size_are_weighted_as_keras_weights_the_loss(self):
        model = six_term_model()
        logs = model.evaluate(X, X, batch_size=8, verbose=0, return_dict=True)
        parts = [(len(b), terms_by_hand(model, b)) for b in (X[:8], X[8:16], X[16:])]
        mean = {n: sum(k * p[n] for k, p in parts) / 20 for n in parts[0][1]}
        assert_logs_equal(logs, mean)

    def test_the_progress_bar_sees_each_term_after_every_batch(self):
        seen = []

        class Watch(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                seen.append(dict(logs))

        model = six_term_model()
        model.compile(keras.optimizers.SGD(0.0), loss="half_sum_squared_error")
        by_hand = terms_by_hand(model, X)
        model.predict(X, verbose=0)  # must leave no trace in the logs
        model.fit(X, X, batch_size=20, epochs=2, verbose=0, callbacks=[Watch()])
        assert len(seen) == 2
        for logs in seen:
            assert_logs_equal(logs, by_hand)

    def test_equal_names_get_a_number(self):
        layer = kp.layers.ActivityPenalty("l1(0.1) + l1(0.2)", name="a")
        assert [term.name for term in layer.terms] == ["a_l1", "a_l1_2"]


class TestTotals:
    @pytest.mark.parametrize("nested", [False, True])
    def test_shared_layer(self, nested):
        """A weight counts once, each output counts; Keras on JAX loses two."""
        shared = kp.layers.Penalized(
            layers.Dense(6, name="d"), weights={"kernel": "l2(1.0)"}, outputs="l1(0.1)"
        )
        inputs = keras.Input((6,))
        model = keras.Model(inputs, shared(shared(shared(inputs))))
        if nested:
            model = keras.Model(inputs, model(inputs))
        model.compile("sgd", "mse")
        kernel, bias = map(wide, shared.layer.weights)
        outputs = [X @ kernel + bias]
        for _ in range(2):
            outputs.append(outputs[-1] @ kernel + bias)
        l1 = 0.1 * sum(np.sum(abs(y)) for y in outputs) / len(X)
        l2 = np.sum(kernel**2)
        for _ in range(2):
            logs = model.evaluate(X, X, batch_size=20, verbose=0, return_dict=True)
            assert logs["d_kernel_l2"] == pytest.approx(l2, rel=1e-5)
            assert logs["d_output_l1"] == pytest.approx(l1, rel=1e-5)
            data = np.mean((X - outputs[-1]) ** 2)
            assert logs["loss"] == pytest.approx(data + l1 + l2, rel=1e-5)

    @pytest.mark.slow_on_tensorflow
    @pytest.mark.parametrize(
        "traces",
        [5, *([pytest.param(40, marks=pytest.mark.slow)] * (BACKEND == "jax"))],
    )
    def test_fresh_traces_of_six_layers(self, traces):
        """Keras on JAX finds losses by the ids of freed tensors: 1 in 10 went wrong."""
        inputs = keras.Input((3,))
        x = inputs
        for i in range(6):
            x = layers.Dense(3, use_bias=False, kernel_initializer="identity")(x)
            x = kp.layers.ActivityPenalty(kp.penalties.L2(10.0**-i), name=f"a{i}")(x)
        model = keras.Model(inputs, x)
        ones = np.ones((4, 3), "float32")
        expected = 3.0 * sum(10.0**-i for i in range(6))
        for _ in range(traces):
            model.compile(keras.optimizers.SGD(0.0), "mse")
            trained = model.train_on_batch(ones, ones)
            tested = model.evaluate(ones, ones, verbose=0)
            assert trained[0] == pytest.approx(expected, rel=1e-5)
            assert tested[0] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("batch", [1, 8, 32])
    def test_kl_is_exact_at_every_batch_size(self, batch):
        penalty = kp.penalties.KLSparsity(2.0, rate=0.1)
        x = (
            np.random.default_rng(batch)
            .uniform(0.05, 0.95, (batch, 5))
            .astype("float32")
        )
        layer = kp.layers.ActivityPenalty(penalty)
        layer(ops.convert_to_tensor(x))
        total = float(ops.convert_to_numpy(sum(layer.losses)))
        assert total == pytest.approx(2.0 * kl(x.astype("float64"), 0.1), rel=1e-5)

    def test_under_jit_and_several_steps_per_execution(self):
        if BACKEND == "torch":
            pytest.skip("the torch backend allows one step per execution only")
        model = six_term_model()
        model.compile(
            keras.optimizers.SGD(0.0),
            "half_sum_squared_error",
            steps_per_execution=2,
            jit_compile=True,
        )
        by_hand = terms_by_hand(model, X)
        history = model.fit(X, X, batch_size=10, epochs=1, verbose=0, shuffle=False)
        halves = [terms_by_hand(model, half) for half in (X[:10], X[10:])]
        by_hand = {n: np.mean([h[n] for h in halves]) for n in by_hand}
        logs = {name: values[0] for name, values in history.history.items()}
        assert_logs_equal(logs, by_hand)


class TestPrecision:
    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision_keeps_float32_terms(self, policy):
        """A half float overflows at 65504, and rounds the gradient."""
        keras.config.set_dtype_policy(policy)
        dense = layers.Dense(300, kernel_initializer=keras.initializers.Constant(9.1))
        inputs = keras.Input((6,))
        wrapped = kp.layers.Penalized(dense, weights={"kernel": "l2(1.0)"})
        x = layers.Dense(2, dtype="float32")(wrapped(inputs))
        model = keras.Model(inputs, x)
        model.compile(keras.optimizers.SGD(1e-3), "half_sum_squared_error")
        logs = model.evaluate(X, X[:, :2], verbose=0, return_dict=True)
        name = f"{dense.name}_kernel_l2"
        assert logs[name] == pytest.approx(1800 * 9.1**2, rel=1e-5)

        other = layers.Dense(300, kernel_initializer=keras.initializers.Constant(9.1))
        only = kp.layers.Penalized(other, weights={"kernel": "l2(1.0)"})
        model = keras.Sequential([keras.Input((6,)), only, layers.Rescaling(0.0)])
        model.compile(keras.optimizers.SGD(1e-3), "mse")
        model.train_on_batch(X, np.zeros((20, 300)))
        moved = 9.1 - 1e-3 * 2 * 9.1  # in float16, 9.1 is 9.1015625
        np.testing.assert_allclose(wide(other.kernel), moved, rtol=1e-6)


class TestFreezing:
    def test_a_frozen_weight_is_said_and_not_logged(self):
        dense = layers.Dense(6, name="d")
        wrapped = kp.layers.Penalized(dense, weights={"kernel": "l2"}, outputs="l1")
        model = keras.Sequential([keras.Input((6,)), wrapped])
        wrapped.trainable = False
        model.compile("sgd", "mse")
        with pytest.warns(UserWarning, match="'d_kernel_l2' does not act"):
            logs = model.evaluate(X, X, verbose=0, return_dict=True)
        assert set(logs) == {"d_output_l1", "loss"}
        assert [(t.name, t.acts) for t in kp.terms(model)] == [
            ("d_kernel_l2", False),
            ("d_output_l1", True),
        ]
        wrapped.trainable = True
        model.compile("sgd", "mse")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            logs = model.evaluate(X, X, verbose=0, return_dict=True)
        assert "d_kernel_l2" in logs


class TestSchedules:
    def test_a_schedule_counts_training_steps(self):
        ramp = PolynomialDecay(0.0, 4, 1.0)
        penalty = kp.layers.ActivityPenalty(kp.penalties.L1(ramp), name="a")
        model = keras.Sequential([keras.Input((6,)), penalty, layers.Dense(6)])
        model.compile("sgd", "mse")
        l1 = np.sum(abs(X)) / len(X)
        for step in range(6):
            logs = model.evaluate(X, X, batch_size=20, verbose=0, return_dict=True)
            expected = l1 * min(step / 4, 1.0)
            assert logs["a_l1"] == pytest.approx(expected, rel=1e-5)
            model.train_on_batch(X, X)

    def test_a_schedule_in_a_slot_raises(self):
        ramp = PolynomialDecay(0.0, 4, 1.0)
        with pytest.raises(ValueError, match="a Keras slot has no step count"):
            kp.penalties.L1(ramp)(X)


class TestMomentum:
    def test_small_batches_see_the_running_mean(self):
        x = RNG.uniform(0.05, 0.95, (64, 3)).astype("float32")
        layer = kp.layers.ActivityPenalty("kl_sparsity(1.0)", momentum=0.9)
        mean, weight = np.zeros(3), 0.0
        for row in x:
            layer(ops.convert_to_tensor(row[None]), training=True)
            mean, weight = 0.9 * mean + 0.1 * row, 0.9 * weight + 0.1
            by_hand = kl((mean / weight)[None], 0.1)
            total = float(ops.convert_to_numpy(sum(layer.losses)))
            assert total == pytest.approx(by_hand, rel=1e-4)

    def test_momentum_needs_a_penalty_of_the_mean(self):
        with pytest.raises(ValueError, match="argument `momentum`"):
            kp.layers.ActivityPenalty("l1", momentum=0.9)
        with pytest.raises(ValueError, match="argument `momentum`"):
            kp.layers.ActivityPenalty("kl_sparsity", momentum=1.0)


class TestPenalized:
    def test_names_must_fit_one_weight(self):
        attention = layers.MultiHeadAttention(2, 3, name="mha")
        for name, expected in (("kernel", "query/kernel"), ("kernl", "query/kernel")):
            layer = kp.layers.Penalized(attention, weights={name: "l2"})
            with pytest.raises(ValueError, match=expected):
                layer(ops.ones((2, 5, 4)), ops.ones((2, 5, 4)))

    def test_layers_of_several_inputs(self):
        attention = layers.MultiHeadAttention(2, 3, name="mha")
        layer = kp.layers.Penalized(attention, weights={"query/kernel": "l2(1.0)"})
        query, value = keras.Input((5, 4)), keras.Input((7, 4))
        model = keras.Model([query, value], layer(query, value))
        copy = keras.Model.from_config(model.get_config())
        assert copy.output_shape == model.output_shape == (None, 5, 4)
        model([ops.ones((2, 5, 4)), ops.ones((2, 7, 4))])
        kernel = next(v for v in attention.weights if v.path.endswith("query/kernel"))
        total = float(ops.convert_to_numpy(sum(model.losses)))
        assert total == pytest.approx(np.sum(wide(kernel) ** 2), rel=1e-5)

    def test_recurrent_layers_masks_and_training_pass_through(self):
        tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
        recurrent = layers.LSTM(3, dropout=0.5, name="lstm")
        wrapped = kp.layers.Penalized(recurrent, weights={"recurrent_kernel": "l2"})
        inputs = keras.Input((4,))
        embedded = layers.Embedding(5, 2, mask_zero=True)(inputs)
        model = keras.Model(inputs, wrapped(embedded))
        plain = keras.Model(inputs, recurrent(embedded))
        np.testing.assert_allclose(
            model.predict(tokens, verbose=0),
            plain.predict(tokens, verbose=0),
            rtol=1e-5,
        )
        ones = np.ones((1, 4))
        dropped = [wide(model(ones, training=True)) for _ in range(4)]
        assert len({d.tobytes() for d in dropped}) > 1

    def test_bad_arguments(self):
        dense = layers.Dense(2)
        for arguments in ({}, {"weights": {}}, {"weights": {"kernel": "kl_sparsity"}}):
            with pytest.raises(ValueError, match="argument `weights`"):
                kp.layers.Penalized(dense, **arguments)
        with pytest.raises(ValueError, match="argument `layer`"):
            kp.layers.Penalized("dense", weights={"kernel": "l2"})

    def test_two_terms_of_one_kind_on_one_weight(self):
        dense = layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1))
        layer = kp.layers.Penalized(dense, weights={"kernel": "l2"})
        with pytest.raises(ValueError, match="already carries"):
            layer(ops.ones((2, 3)))


def test_terms_lists_slots_too():
    inputs = keras.Input((6,))
    dense = layers.Dense(
        4,
        kernel_regularizer="keras_penalties>L1",
        bias_regularizer="l2",
        activity_regularizer=kp.penalties.Hoyer(0.5),
        activation="sigmoid",
        name="d",
    )
    inner = keras.Model(inputs, dense(inputs))
    model = keras.Model(
        inputs, kp.layers.ActivityPenalty("l1", name="a")(inner(inputs))
    )
    rows = [
        (t.name, t.strength and pytest.approx(t.strength), t.host, t.acts)
        for t in kp.terms(model)
    ]
    assert rows == [
        ("d_kernel_l1", 0.01, "slot", True),
        ("d_bias_l2", None, "slot", True),
        ("d_hoyer", 0.5, "slot", True),
        ("a_l1", 0.01, "layer", True),
    ]
    with pytest.raises(ValueError, match="a built model"):
        kp.terms(keras.Sequential([layers.Dense(2)]))
