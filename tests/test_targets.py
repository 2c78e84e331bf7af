"""Targets: constraints held in plain `fit`, against multipliers that are known."""

import json

import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops
from scipy.optimize import brentq
from sklearn.datasets import load_digits

import keras_penalties as kp
from keras_penalties import Target

SAMPLES, WIDTH = 8, 4
RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.normal(size=(SAMPLES, WIDTH)))[0] * SAMPLES**0.5  # QᵀQ/n = 1
TRUTH = np.array([2.0, -1.0, 0.5, 0.1])
SKEW = Q @ np.diag([1.5, 1.0, 0.7, 0.5]) @ np.linalg.qr(RNG.normal(size=(4, 4)))[0]


def wide(x):
    return ops.convert_to_numpy(x).astype("float64")


def regression(host, **options):
    """`1/(2n)·‖y − x·w − b‖²`, with what `host` puts around it."""
    dense = layers.Dense(1, kernel_initializer="zeros", name="d", **options)
    return dense, keras.Sequential([keras.Input((WIDTH,)), host(dense)])


def trained(model, x, y, steps, rate=0.1):
    """A full batch a step, all in one epoch."""
    together = {"steps_per_execution": 50} if BACKEND == "tensorflow" else {}
    model.compile(keras.optimizers.SGD(rate), "half_sum_squared_error", **together)
    x, y = np.tile(x, (steps, 1)), np.tile(y[:, None], (steps, 1))
    return model.fit(x, y, batch_size=SAMPLES, shuffle=False, verbose=0).history


def l2_ball(x, y, bound):
    """The solution of least squares with `‖w‖² ≤ bound`, and its multiplier."""
    hessian, slope = x.T @ x / SAMPLES, x.T @ y / SAMPLES

    def solution(multiplier):
        return np.linalg.solve(hessian + 2.0 * multiplier * np.eye(WIDTH), slope)

    def excess(multiplier):
        return np.sum(solution(multiplier) ** 2) - bound

    multiplier = brentq(excess, 0.0, 1e3, xtol=1e-12) if excess(0.0) > 0 else 0.0
    return solution(multiplier), multiplier


@pytest.mark.slow_on_tensorflow
class TestKnownMultipliers:
    """Solution and multiplier, each within 1e-3 of exact."""

    @pytest.mark.parametrize("bound", [2.0, 50.0])
    def test_least_squares_in_a_ball(self, bound):
        """Bound, and so wide that the constraint does not act: then it is 0."""
        y = SKEW @ TRUTH
        penalty = kp.penalties.L2(Target(bound))
        dense, model = regression(
            lambda d: kp.layers.Penalized(d, weights={"kernel": penalty})
        )
        x = SKEW - SKEW.mean(0)
        exact, multiplier = l2_ball(x, y - y.mean(), bound)
        trained(model, x, y - y.mean(), steps=2500, rate=0.3)
        np.testing.assert_allclose(wide(dense.kernel)[:, 0], exact, atol=1e-3)
        assert kp.terms(model)[0].strength == pytest.approx(multiplier, abs=1e-3)
        assert (multiplier == 0.0) == (bound == 50.0)

    def test_lasso_in_its_first_form(self):
        """`‖w‖₁ ≤ 2`: soft thresholding by 0.5 leaves 1.5, 0.5 and two zeros."""
        penalty = kp.penalties.L1(Target(2.0))
        dense, model = regression(
            lambda d: kp.layers.Penalized(d, weights={"kernel": penalty}),
            use_bias=False,
        )
        # A subgradient swings about a zero by its step, so the step must become small.
        slower = kp.strengths.CosineRamp(0.1, 1e-4, steps=3000)
        trained(model, Q, Q @ TRUTH, steps=3000, rate=slower)
        expected = [1.5, -0.5, 0.0, 0.0]
        np.testing.assert_allclose(wide(dense.kernel)[:, 0], expected, atol=1e-3)
        assert kp.terms(model)[0].strength == pytest.approx(0.5, abs=1e-3)

    @pytest.mark.parametrize("of", ["value", "mean"])
    @pytest.mark.parametrize(("kind", "held"), [("==", 0.5), ("==", 3.0), (">=", 3.0)])
    def test_a_mean_output(self, of, kind, held):
        """The bias alone moves: `b − ȳ + multiplier = 0` where the mean is held."""
        x = Q - Q.mean(0)
        y = 2.0 + 0.1 * x @ TRUTH
        penalty = kp.penalties.L1(Target(held, of=of, kind=kind))
        dense, model = regression(
            lambda d: kp.layers.Penalized(d, outputs=penalty), bias_initializer="ones"
        )
        trained(model, x, y, steps=1500)
        np.testing.assert_allclose(wide(dense.bias), held, atol=1e-3)
        np.testing.assert_allclose(wide(dense.kernel)[:, 0], 0.1 * TRUTH, atol=1e-3)
        assert kp.terms(model)[0].strength == pytest.approx(2.0 - held, abs=1e-3)

    def test_the_multiplier_is_what_a_unit_of_the_bound_would_save(self):
        y = SKEW @ TRUTH
        (w, multiplier), (v, _) = (l2_ball(SKEW, y, b) for b in (2.0, 2.0 + 1e-4))
        loss_w, loss_v = (
            0.5 * np.mean((y - SKEW @ solution) ** 2) for solution in (w, v)
        )
        assert (loss_w - loss_v) / 1e-4 == pytest.approx(multiplier, rel=1e-3)


class TestStep:
    def model(self, target, **options):
        dense = layers.Dense(3, kernel_initializer="ones", name="d")
        weights = {"kernel": kp.penalties.L1(target) + kp.penalties.L2(0.5)}
        host = kp.layers.Penalized(dense, weights=weights)
        model = keras.Sequential([keras.Input((3,)), host])
        model.compile(keras.optimizers.SGD(0.0), "mse", **options)
        return model

    @pytest.mark.parametrize(("of", "right"), [("mean", 3.0), ("density", 1.0)])
    def test_what_a_mask_hides_is_not_measured(self, of, right):
        """Two of four steps are padded: the mean entry is 3, not 1.5."""
        target = Target(0.0, of=of, rate=1.0, damping=0.0)
        inputs = keras.Input((4, 1))
        host = kp.layers.ActivityPenalty(kp.penalties.L1(target), name="a")
        model = keras.Model(inputs, host(layers.Masking()(inputs)))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = np.array([[[3.0], [3.0], [0.0], [0.0]]])
        model.fit(x, x, verbose=0)
        assert kp.terms(model)[0].strength == pytest.approx(right)

    @pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
    def test_two_steps_by_hand(self, options):
        """‖w‖₁ = 9 stays: each step uses 10 steps' worth of the error on top."""
        target = Target(4.0, initial=0.25, rate=0.01, damping=10.0)
        model = self.model(target, **options)
        x = np.zeros((6, 3))
        by_hand = [0.25 + 10 * 0.05, 0.25 + 0.05 + 10 * 0.05]
        history = model.fit(x, x, batch_size=3, validation_data=(x, x), verbose=0)
        logs = {name: values[0] for name, values in history.history.items()}
        assert logs["d_kernel_l1_strength"] == pytest.approx(np.mean(by_hand))
        assert logs["d_kernel_l1"] == pytest.approx(9 * np.mean(by_hand))
        # An evaluation uses the multiplier, and does not move it.
        assert logs["val_d_kernel_l1_strength"] == pytest.approx(0.35)
        assert logs["val_d_kernel_l1"] == pytest.approx(9 * 0.35)
        assert [t.strength for t in kp.terms(model)] == [pytest.approx(0.35), 0.5]

    def test_relative_steps_are_factors(self):
        target = Target(4.0, initial=0.25, rate=0.01, relative=True)
        model = self.model(target)
        model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 3)))
        assert kp.terms(model)[0].strength == pytest.approx(0.25 * np.exp(0.05 / 4))

    def test_relative_steps_to_a_value_below_zero(self):
        """The mean −1 exceeds −4, so the strength grows, by its share of 4."""
        target = Target(-4.0, "mean", "==", 0.25, rate=0.01, relative=True, damping=0.0)
        layer = kp.layers.ActivityPenalty(kp.penalties.L1(target))
        model = keras.Sequential([keras.Input((3,)), layer])
        model.compile(keras.optimizers.SGD(0.0))
        model.train_on_batch(np.full((2, 3), -1.0))
        assert kp.terms(model)[0].strength == pytest.approx(0.25 * np.exp(0.03 / 4))

    @pytest.mark.parametrize("tolerance", [0.0, 0.3])
    def test_density_counts_what_is_larger_than_the_tolerance(self, tolerance):
        x = np.array([[0.0, -0.5, 0.2], [1.0, 0.0, 0.0]], "float32")
        density = np.mean(abs(x) > tolerance)
        target = Target(0.1, of="density", rate=1.0, tolerance=tolerance)
        layer = kp.layers.ActivityPenalty(kp.penalties.L1(target))
        layer(ops.convert_to_tensor(x), training=True)
        strength = wide(layer.present_strength(layer.terms[0]))
        assert strength == pytest.approx(density - 0.1)

    def test_bounds(self):
        zero, low, high = map(ops.convert_to_tensor, (0.0, -1.0, 1.0))
        for kind, expected in (("<=", (0, 1)), (">=", (-1, 0)), ("==", (-1, 1))):
            target = Target(0.0, kind=kind, rate=1.0)
            moved = [wide(target.moved(zero, zero, None, e)[1]) for e in (low, high)]
            assert moved == list(expected)

    def test_a_layer_that_is_called_twice_moves_a_weights_multiplier_once(self):
        target = Target(4.0, rate=0.01)
        dense = layers.Dense(3, kernel_initializer="ones", name="d")
        host = kp.layers.Penalized(dense, weights={"kernel": kp.penalties.L1(target)})
        inputs = keras.Input((3,))
        model = keras.Model(inputs, host(host(inputs)))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 3)))
        assert kp.terms(model)[0].strength == pytest.approx(0.05)

    def test_it_is_saved_and_goes_on(self, tmp_path):
        model = self.model(Target(4.0, rate=0.01))
        x = np.zeros((2, 3))
        model.fit(x, x, epochs=3, verbose=0)
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        assert again.layers[-1].terms[0].penalty.strength == Target(4.0, rate=0.01)
        again.fit(x, x, verbose=0)
        assert kp.terms(again)[0].strength == pytest.approx(0.2)

    def test_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_float16")
        model = self.model(Target(4.0, rate=1e-6, damping=0.0))
        x = np.zeros((2, 3))
        model.fit(x, x, epochs=3, verbose=0)
        assert kp.terms(model)[0].strength == pytest.approx(15e-6, rel=1e-5)


class TestArguments:
    @pytest.mark.parametrize("target", Target.examples())
    def test_a_penalty_takes_it_through_json(self, target):
        penalty = kp.penalties.L1(target)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(penalty)))
        assert keras.saving.deserialize_keras_object(config) == penalty

    def test_bad_arguments(self):
        for arguments in (
            {"value": float("nan")},
            {"value": 1.0, "of": "rank"},
            {"value": 1.0, "kind": "<"},
            {"value": 1.0, "initial": -1.0},
            {"value": 1.0, "initial": 1.0, "kind": ">="},
            {"value": 1.0, "rate": 0.0},
            {"value": 1.0, "damping": -1.0},
            {"value": 1.0, "relative": True},
            {"value": 0.1, "of": "density", "tolerance": -1.0},
        ):
            with pytest.raises(ValueError, match=f"argument `{[*arguments][-1]}`|init"):
                Target(**arguments)

    def test_a_loss_has_no_density(self):
        tenth = Target(0.1, of="density", initial=1e-3, relative=True)
        with pytest.raises(ValueError, match="of the loss itself"):
            kp.layers.AddLoss("mean_squared_error", tenth)

    def test_a_slot_has_no_multiplier(self):
        with pytest.raises(ValueError, match="no multiplier"):
            kp.penalties.L1(Target(1.0))(np.ones((2, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("initial", [1e-6, 1e-4, 1e-3, 1e-2, 0.1])
def test_digits_reach_a_density_from_any_start(initial):
    """One setting; five starts over five powers of ten."""
    x, y = load_digits(return_X_y=True)
    tenth = Target(
        0.1, of="density", initial=initial, rate=0.02, relative=True, tolerance=0.01
    )
    hidden = layers.Dense(64, activation="tanh", name="hidden")
    sparse = kp.layers.Penalized(hidden, weights={"kernel": kp.penalties.L1(tenth)})
    model = keras.Sequential([keras.Input((64,)), sparse, layers.Dense(10)])
    model.compile(
        # Entries about zero are as large as a step: it must end below the tolerance.
        keras.optimizers.Adam(kp.strengths.CosineRamp(0.01, 1e-4, steps=1800)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    logs = model.fit(x / 16.0, y, batch_size=60, epochs=60, verbose=0).history
    density = np.mean(abs(wide(hidden.kernel)) > 0.01)
    print(BACKEND, initial, density, kp.terms(model)[0].strength, logs["accuracy"][-1])
    assert density == pytest.approx(0.1, abs=0.01)
    assert logs["accuracy"][-1] > 0.95
