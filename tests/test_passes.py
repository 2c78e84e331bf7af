"""One forward pass: each strength is read once and moves once, loops are refused."""

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp

X = np.ones((4, 3), "float32")


def still(accumulate=None):
    """An optimizer that moves no weight, of steps over so many batches."""
    return keras.optimizers.SGD(0.0, gradient_accumulation_steps=accumulate)


def thrice(strength, penalty=kp.penalties.L2, accumulate=None, **kwargs):
    """A model that calls one penalised identity three times, and never moves."""
    dense = layers.Dense(3, kernel_initializer="identity", name="d")
    shared = kp.layers.Penalized(dense, outputs=penalty(strength), name="p")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, shared(shared(shared(inputs))))
    model.compile(still(accumulate), "mse", **kwargs)
    return model


def history(model, epochs=4, **kwargs):
    fitted = model.fit(X, X, epochs=epochs, batch_size=4, verbose=0, **kwargs).history
    return np.array(fitted["d_output_l2"]), np.array(fitted["d_output_l2_strength"])


ACCUMULATION = pytest.mark.parametrize("accumulate", [None, 2])


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"accumulate": 2}], ids=str)
def test_a_shared_layer_reads_each_strength_once_a_pass(how):
    ramp = kp.strengths.LinearRamp(0.0, 4.0, 4)
    values, strengths = history(thrice(ramp, **how))
    np.testing.assert_allclose(values, [0, 9, 18, 27], rtol=1e-6)
    np.testing.assert_allclose(strengths, [0, 1, 2, 3], rtol=1e-6)
    values, _ = history(thrice(kp.strengths.Lazy(1.0, every=2), **how))
    np.testing.assert_allclose(values, [18, 0, 18, 0], rtol=1e-6)


@pytest.mark.slow_on_tensorflow
@ACCUMULATION
def test_a_target_of_a_shared_layer_moves_once_by_all_calls(accumulate):
    """Nine is what the three calls measure together: three above the target."""
    target = kp.Target(6.0, rate=0.1, damping=0.0)
    values, strengths = history(thrice(target, accumulate=accumulate))
    np.testing.assert_allclose(strengths, [0, 0.3, 0.6, 0.9], rtol=1e-5)
    np.testing.assert_allclose(values, 9 * strengths, rtol=1e-5)


@ACCUMULATION
def test_a_running_mean_of_a_shared_layer_moves_once_by_all_calls(accumulate):
    code = kp.layers.ActivityPenalty("kl_sparsity(1.0)", momentum=0.5, name="code")
    inputs = keras.Input((3,))
    low, high = (layers.Rescaling(s)(inputs) for s in (0.2, 0.4))
    model = keras.Model(inputs, layers.Add()([code(low), code(high)]))
    model.compile(still(accumulate), "mse")
    model.fit(X, X, batch_size=4, epochs=2, verbose=0)
    mean, weight = np.split(ops.convert_to_numpy(code.running_mean), [3])
    np.testing.assert_allclose(weight, 0.75)
    np.testing.assert_allclose(mean / weight, [0.3] * 3, rtol=1e-6)


def test_a_learned_strength_starts_once_by_all_calls_of_its_first_pass():
    """Each of two calls loses 4: the first one sets the first pass's strength."""
    balanced = kp.layers.AddLoss("mse", kp.strengths.Learned("auto"), name="near")
    inputs, y_true = keras.Input((3,)), keras.Input((3,))
    outputs = layers.Dense(3, kernel_initializer="identity")(inputs)
    seen = [balanced(layers.Rescaling(2.0)(outputs), y_true=y_true) for _ in range(2)]
    model = keras.Model([inputs, y_true], seen)
    model.compile(still(accumulate=2))
    logs = model.fit([X, 0.0 * X], batch_size=4, epochs=2, verbose=0).history
    strengths = np.array([1 / 8, 1 / 16])
    np.testing.assert_allclose(logs["near_strength"], strengths, rtol=1e-6)
    expected = 2 * (4 * strengths - 0.5 * np.log(strengths))
    np.testing.assert_allclose(logs["near"], expected, rtol=1e-6)


class TestALossOfOneLazyTermAlone:
    """At a step that it skips nothing else gives torch a gradient."""

    def test_on_weights(self):
        line = layers.Dense(2, use_bias=False, name="line")
        penalty = kp.penalties.L2(kp.strengths.Lazy(0.3, every=2))
        model = keras.Sequential(
            [keras.Input((3,)), kp.layers.Penalized(line, {"kernel": penalty})]
        )
        model.compile(keras.optimizers.SGD(0.1))
        before = ops.convert_to_numpy(line.kernel)
        model.fit(X, batch_size=2, epochs=2, verbose=0)
        after = before * (1 - 0.1 * 2 * 0.6) ** 2  # two steps of four
        np.testing.assert_allclose(ops.convert_to_numpy(line.kernel), after, rtol=1e-5)

    def test_on_several_outputs(self):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, [layers.Dense(2, name=n)(inputs) for n in "ab"])
        lazy = kp.penalties.L2(kp.strengths.Lazy(0.3, every=2))
        model = kp.penalize(model, {"[ab]": {"outputs": lazy}})
        model.compile(keras.optimizers.SGD(0.1))
        losses = model.fit(X, batch_size=4, epochs=4, verbose=0).history["loss"]
        assert losses[0] > losses[2] > 0
        assert losses[1] == losses[3] == 0


class Silent(keras.Model):
    """As many models are written: `call` does not take `training`."""

    def __init__(self, strength, **kwargs):
        super().__init__(**kwargs)
        penalty = kp.penalties.L2(strength)
        self.code = kp.layers.ActivityPenalty(penalty, name="code")

    def call(self, x):
        return self.code(x)


@pytest.mark.slow_on_tensorflow
def test_training_is_seen_where_a_model_does_not_pass_it_on():
    model = Silent(kp.strengths.LinearRamp(1.0, 2.0, 2))
    model.compile("sgd", "mse")
    seen = model.fit(
        X, X, epochs=3, batch_size=4, verbose=0, validation_data=(X, X)
    ).history
    np.testing.assert_allclose(seen["code_l2_strength"], [1.0, 1.5, 2.0])
    # An evaluation after the step sees the strength that the step left.
    np.testing.assert_allclose(seen["val_code_l2_strength"], [1.5, 2.0, 2.0])
    before = ops.convert_to_numpy(model.code.steps)
    model.evaluate(X, X, verbose=0)
    model.predict(X, verbose=0)
    assert ops.convert_to_numpy(model.code.steps) == before == 3


@kp.register(package="tests")
class Cell(layers.Layer):
    state_size = output_size = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.act = kp.layers.ActivityPenalty("l1(1.0)", name="act")

    def build(self, shape):
        self.act.build(shape)
        self.built = True

    def call(self, x, states):
        h = self.act(x)
        return h, [h]


class TestLoops:
    def test_a_loop_that_is_written_out_counts_once_a_step(self):
        rnn = layers.RNN(Cell(), unroll=True)
        model = keras.Sequential([keras.Input((4, 3)), rnn])
        model.compile("sgd", "mse")
        x = np.ones((2, 4, 3), "float32")
        logs = model.evaluate(x, x[:, 0], batch_size=2, verbose=0, return_dict=True)
        assert logs["act_l1"] == pytest.approx(12.0)

    @pytest.mark.parametrize("outer", [lambda x: x, layers.Bidirectional])
    def test_a_loop_is_refused_with_where_to_put_the_layer(self, outer):
        layer = outer(layers.RNN(Cell()))
        with pytest.raises(ValueError, match=r"loop of .*Put it outside.*unroll=True"):
            keras.Sequential([keras.Input((4, 3)), layer])(np.ones((2, 4, 3)))

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere a length is known")
    def test_steps_whose_number_is_not_known_are_refused(self):
        import tensorflow as tf

        layer = layers.TimeDistributed(kp.layers.ActivityPenalty("l1(1.0)"))
        layer.build((None, None, 3))
        graph = tf.function(layer, input_signature=[tf.TensorSpec((2, None, 3))])
        with pytest.raises(ValueError, match="loop of TimeDistributed"):
            graph(np.ones((2, 4, 3), "float32"))

    def test_a_layer_beside_a_loop_works(self):
        lstm = layers.LSTM(3, return_sequences=True)
        model = keras.Sequential(
            [keras.Input((4, 3)), lstm, kp.layers.ActivityPenalty("l1(1.0)")]
        )
        model.compile("sgd", "mse")
        x = np.ones((2, 4, 3), "float32")
        model.fit(x, x, verbose=0)


@kp.register(package="tests")
class Halving(kp.strengths.Strength):
    """A user's own kind: half as strong after each step."""

    def __init__(self, initial):
        self.initial = initial

    def at(self, step, state, training):
        return ops.cast(self.initial * 0.5 ** ops.cast(step, "float32"), state.dtype)

    @classmethod
    def examples(cls):
        return [cls(8.0)]


class TestAKindOfOnesOwn:
    def test_in_layers_logged_and_saved(self, tmp_path):
        model = thrice(Halving(8.0))
        values, strengths = history(model, 2)
        np.testing.assert_allclose(strengths, [8, 4])
        np.testing.assert_allclose(values, [72, 36])
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        assert history(again, 1)[1] == 2
        with pytest.raises(ValueError, match="constant strength"):
            kp.set_strength(model, "d_output_l2", 1.0)

    def test_in_proximal(self):
        line = layers.Dense(1, use_bias=False, kernel_initializer="ones", name="line")
        model = keras.Sequential([keras.Input((3,)), line])
        rules = {"line/kernel": kp.penalties.L1(Halving(1.0))}
        model.compile(kp.optimizers.Proximal(keras.optimizers.SGD(0.1), rules), "mse")
        y = X.sum(1, keepdims=True)
        model.fit(X, y, batch_size=4, epochs=2, verbose=0)
        # No residual in the first step, so w = 1 - 0.1; then the residual is 0.3.
        w = 0.9 + 0.1 * 2 * 0.3 - 0.1 * 0.5
        np.testing.assert_allclose(ops.convert_to_numpy(line.kernel), w, rtol=1e-5)

    def test_a_slot_refuses_it(self):
        with pytest.raises(ValueError, match="constant here"):
            kp.penalties.L1(Halving(1.0))(X)


def test_a_penalty_with_it_comes_back_from_its_config():
    penalty = kp.penalties.L1(Halving(2.0))
    assert type(penalty).from_config(penalty.get_config()) == penalty
