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
        assert wide(proximal.strength(proximal.terms[0])) == 4

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
        assert wide(proximal.strength(proximal.terms[0])) == 1

    def test_restoring_the_best_weights_rewinds_the_count_with_them(self):
        model = weight_model()
        model.compile("sgd", "mse")
        stop = keras.callbacks.EarlyStopping(
            "loss", patience=1, restore_best_weights=True
        )
        model.fit(X, X, batch_size=4, epochs=9, verbose=0, callbacks=[stop])
        assert step_of(model) == 2 * (stop.best_epoch + 1)
