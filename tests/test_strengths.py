"""Strengths that move: ramps against numpy, and what a step is to whoever counts."""

import json

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp

Linear, Cosine = kp.strengths.LinearRamp, kp.strengths.CosineRamp
Cyclical = kp.strengths.Cyclical
X = np.random.default_rng(0).random((8, 3)).astype("float32")
RAMP = Linear(0.0, 100.0, steps=100)  # the strength is the step


def wide(x):
    return ops.convert_to_numpy(x).astype("float64")


class TestRamps:
    STEPS = np.array([0, 1, 2, 3, 4, 7, 9, 10, 11, 12, 13, 14, 50, 10_000])

    @pytest.mark.parametrize("begin", [0, 3])
    @pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (2.0, 0.5)])
    def test_ramps_against_numpy(self, start, end, begin):
        at = [begin, begin + 10]
        linear = np.interp(self.STEPS, at, [start, end])
        p = np.interp(self.STEPS, at, [0.0, 1.0])
        cosine = start + (end - start) * np.sin(0.5 * np.pi * p) ** 2
        for ramp, expected in ((Linear, linear), (Cosine, cosine)):
            schedule = ramp(start, end, steps=10, begin=begin)
            found = [wide(schedule(ops.convert_to_tensor(s))) for s in self.STEPS]
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
    def test_cycles_against_numpy(self, ratio):
        schedule = Cyclical(0.5, 2.0, period=8, ratio=ratio)
        at, strengths = [0, 8 * ratio, 8], [0.5, 2.0, 2.0]
        expected = [np.interp(s % 8, at, strengths) for s in self.STEPS]
        found = [wide(schedule(ops.convert_to_tensor(s))) for s in self.STEPS]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_single_steps_count_where_float32_has_no_odd_numbers(self):
        late = 2**24 + 1
        step = ops.convert_to_tensor(late, "int32")
        assert wide(Linear(0.0, 1.0, 2, begin=late - 1)(step)) == 0.5
        assert wide(Cyclical(0.0, 1.0, 4, ratio=1.0)(step)) == 0.25

    @pytest.mark.parametrize(
        "schedule", [*Linear.examples(), *Cosine.examples(), *Cyclical.examples()]
    )
    def test_a_penalty_takes_it_through_json(self, schedule):
        penalty = kp.penalties.L1(schedule)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(penalty)))
        again = keras.saving.deserialize_keras_object(config)
        assert again == penalty
        assert again.strength == schedule

    def test_bad_arguments(self):
        for arguments in ((-1.0, 1.0, 5), (0.0, float("nan"), 5), (0.0, 1.0, 0)):
            with pytest.raises(ValueError, match="Invalid value for argument"):
                Linear(*arguments)
        for arguments in ((0.0, 1.0, 2.5), (0.0, 1.0, 5, 0.0), (0.0, 1.0, 5, 1.5)):
            with pytest.raises(ValueError, match="Invalid value for argument"):
                Cyclical(*arguments)

    def test_a_ramp_is_a_learning_rate_too(self):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
        model.compile(keras.optimizers.SGD(Linear(0.5, 0.1, 4)), "mse")
        model.fit(X, X[:, :1], batch_size=4, epochs=1, verbose=0)
        assert wide(model.optimizer.learning_rate) == pytest.approx(0.3)


def weight_model(nested=False, shared=1):
    """A model whose kernel is ones and whose strength is the step."""
    dense = layers.Dense(3, kernel_initializer="ones", name="d")
    host = kp.layers.Penalized(dense, weights={"kernel": kp.penalties.L1(RAMP)})
    inputs = x = keras.Input((3,))
    for _ in range(shared):
        x = host(x)
    model = keras.Model(inputs, x)
    return keras.Model(inputs, model(inputs)) if nested else model


def step_of(model):
    return kp.terms(model)[0].strength


class TestSteps:
    """A layer counts forward passes in training, each once."""

    @pytest.mark.parametrize(
        "options", [{}, {"nested": True}, {"shared": 3}, {"nested": True, "shared": 2}]
    )
    def test_each_training_pass_counts_once_and_evaluation_never(self, options):
        model = weight_model(**options)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        for epoch in range(2):
            assert step_of(model) == 2 * epoch
            logs = model.evaluate(X, X, verbose=0, return_dict=True)
            assert logs["d_kernel_l1"] == pytest.approx(9.0 * 2 * epoch)
            assert logs["d_kernel_l1_strength"] == pytest.approx(2 * epoch)
            history = model.fit(
                X, X, batch_size=4, validation_data=(X, X), verbose=0, shuffle=False
            ).history
            # The mean over the epoch's steps, before each of which it was read.
            assert history["d_kernel_l1_strength"] == pytest.approx([2 * epoch + 0.5])
            assert history["d_kernel_l1"] == pytest.approx([9.0 * (2 * epoch + 0.5)])
            assert history["val_d_kernel_l1"] == pytest.approx([9.0 * 2 * (epoch + 1)])
        model.predict(X, verbose=0)
        assert step_of(model) == 4

    def test_several_steps_per_execution(self):
        if BACKEND == "torch":
            pytest.skip("the torch backend allows one step per execution only")
        model = weight_model()
        model.compile("sgd", "mse", steps_per_execution=2, jit_compile=True)
        model.fit(X, X, batch_size=2, epochs=2, verbose=0)
        assert step_of(model) == 8

    def test_eagerly(self):
        model = weight_model()
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(X, X, batch_size=2, epochs=2, verbose=0)
        assert step_of(model) == 8

    def test_it_goes_on_after_reload(self, tmp_path):
        model = weight_model(nested=True)
        model.compile("sgd", "mse")
        model.fit(X, X, batch_size=2, verbose=0)
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        assert step_of(again) == 4
        again.fit(X, X, batch_size=2, verbose=0)
        assert step_of(again) == 8
        model.load_weights(tmp_path / "m.keras")
        assert step_of(model) == 4

    def test_a_layer_counts_passes_and_proximal_counts_steps(self):
        """Under gradient accumulation: what the optimizer alone knows of."""
        model = weight_model()
        inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        ramp = {"d/bias": kp.penalties.L1(RAMP)}
        model.compile(kp.optimizers.Proximal(inner, ramp), "mse")
        model.fit(X, X, batch_size=2, epochs=2, verbose=0)
        assert step_of(model) == 8
        proximal = model.optimizer
        assert wide(proximal.present_strength(proximal.terms[0])) == 4

    def test_a_pass_whose_step_loss_scaling_skips_counts(self):
        model = weight_model()
        scaled = keras.optimizers.LossScaleOptimizer(
            kp.optimizers.Proximal("sgd", {"d/bias": kp.penalties.L1(RAMP)})
        )
        model.compile(scaled, "mse")
        model.train_on_batch(X, X)
        model.train_on_batch(X, np.full_like(X, np.inf))
        assert step_of(model) == 2
        proximal = scaled.inner_optimizer
        assert wide(proximal.present_strength(proximal.terms[0])) == 1

    def test_restoring_the_best_weights_rewinds_the_count_with_them(self):
        model = weight_model()
        model.compile("sgd", "mse")
        stop = keras.callbacks.EarlyStopping(
            "loss", patience=1, restore_best_weights=True
        )
        model.fit(X, X, batch_size=4, epochs=9, verbose=0, callbacks=[stop])
        assert step_of(model) == 2 * (stop.best_epoch + 1)


class Set(keras.callbacks.Callback):
    """Sets a strength before each batch or epoch, by a model it holds or its own."""

    def __init__(self, term, values, when="batch", model=None):
        super().__init__()
        self.term, self.values, self.when, self.held = term, values, when, model

    def _set(self, index):
        kp.set_strength(self.held or self.model, self.term, self.values[index])

    def on_epoch_begin(self, epoch, logs=None):
        if self.when == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.when == "batch":
            self._set(batch)


class TestSetStrength:
    VALUES = (0.5, 2.0, 0.0, 8.0)

    def model(self, optimizer=None, **options):
        dense = layers.Dense(3, kernel_initializer="ones", name="d")
        host = kp.layers.Penalized(dense, weights={"kernel": "l1(1.0) + l2(1.0)"})
        model = keras.Sequential([keras.Input((3,)), host])
        model.compile(optimizer or keras.optimizers.SGD(0.0), "mse", **options)
        return model

    @pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
    @pytest.mark.parametrize("when", ["batch", "epoch"])
    @pytest.mark.parametrize("held", [False, True])
    def test_it_acts_at_once(self, when, held, options):
        model = self.model(**options)
        model.fit(X, X, verbose=0)  # it is traced with the old strength
        change = Set("d_kernel_l1", self.VALUES, when, model if held else None)
        batch, epochs = (2, 1) if when == "batch" else (8, 4)
        history = model.fit(
            X, X, batch_size=batch, epochs=epochs, verbose=0, callbacks=[change]
        ).history
        expected = 9.0 * np.array(self.VALUES)
        if when == "batch":
            expected = [np.mean(expected)]
        np.testing.assert_allclose(history["d_kernel_l1"], expected, rtol=1e-6)
        assert kp.terms(model)[0].strength == self.VALUES[-1]
        assert kp.terms(model)[1].strength == 1.0

    def test_it_is_saved_with_the_weights(self, tmp_path):
        model = self.model()
        kp.set_strength(model, "d_kernel_l2", 3.0)
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        logs = again.evaluate(X, X, verbose=0, return_dict=True)
        assert logs["d_kernel_l2"] == pytest.approx(27.0)

    @pytest.mark.parametrize("scaled", [False, True])
    def test_a_strength_of_proximal(self, scaled):
        sparse = kp.optimizers.Proximal(keras.optimizers.SGD(0.1), {"d2/bias": "l1"})
        outer = keras.optimizers.LossScaleOptimizer(sparse) if scaled else sparse
        dense = layers.Dense(3, bias_initializer="ones", name="d2")
        model = keras.Sequential([keras.Input((3,)), dense, layers.Rescaling(0.0)])
        model.compile(outer, "mse")
        rows = [(t.name, t.strength, t.target, t.host, t.acts) for t in kp.terms(model)]
        name = "d2_bias_l1"
        assert rows == [(name, pytest.approx(0.01), "d2/bias", "optimizer", True)]
        model.train_on_batch(X, X)
        np.testing.assert_allclose(wide(dense.bias), 1.0 - 0.1 * 0.01, rtol=1e-6)
        before = wide(dense.bias)
        change = Set(name, self.VALUES)
        model.fit(X, X, batch_size=4, verbose=0, callbacks=[change])
        np.testing.assert_allclose(wide(dense.bias), before - 0.25, rtol=1e-6)
        dense.trainable = False
        assert not kp.terms(model)[0].acts

    def test_what_cannot_be_set_raises_and_says_what_to_do(self):
        dense = layers.Dense(3, name="d", bias_regularizer=kp.penalties.L1(0.1))
        host = kp.layers.Penalized(dense, weights={"kernel": kp.penalties.L1(RAMP)})
        x = kp.layers.ActivityPenalty(kp.penalties.L1(kp.Target(0.1)), name="a")
        model = keras.Sequential([keras.Input((3,)), host, x])
        for term, message in (
            ("d_kernl_l1", "Did you mean 'd_kernel_l1'"),
            ("d_bias_l1", "Penalized"),
            ("d_kernel_l1", "a number in its place"),
            ("a_l1", "a number in its place"),
        ):
            with pytest.raises(ValueError, match=message):
                kp.set_strength(model, term, 0.5)
        with pytest.raises(ValueError, match="argument `value`"):
            kp.set_strength(self.model(), "d_kernel_l1", -0.5)
        twice = keras.Sequential([keras.Input((3,)), self.model(), self.model()])
        with pytest.raises(ValueError, match="one of `terms"):
            kp.set_strength(twice, "d_kernel_l1", 0.5)
