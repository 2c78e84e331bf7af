"""Weights, masks and unknown targets of losses: by hand, in fit, and hosted."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from laws import cases
from loss_proofs import normal, samples

import keras_penalties as kp
from keras_penalties import autodiff, compat
from keras_penalties.losses import (
    AsymmetricLoss,
    CoxPartialLikelihood,
    Distillation,
    EnergyScore,
    Expectile,
    HalfSumSquaredError,
    NTXent,
    PenalizedCrossentropy,
    Pinball,
    SupervisedContrastive,
)
from keras_penalties.losses.hosting import hosted
from keras_penalties.losses.reduction import reduced

NAN = float("nan")
MSE = keras.losses.MeanSquaredError
SPARSE = keras.losses.SparseCategoricalCrossentropy


def value_and_slope(loss, y_true, y_pred, *weight):
    y_pred = ops.convert_to_tensor(np.asarray(y_pred, "float32"))
    pair = autodiff.value_and_gradient(lambda y: loss(y_true, y, *weight), y_pred)
    return tuple(map(ops.convert_to_numpy, pair))


# Features.


def test_an_unknown_feature_is_left_out_of_its_sample():
    y_pred = np.array([[1.0, 4.0], [2.0, 7.0], [5.0, 6.0]])
    for ignore, unknown in ((NAN, np.nan), ("nan", np.nan), (-1, -1), (-1.5, -1.5)):
        y_true = np.array([[3.0, unknown], [2.0, 4.0], [unknown, unknown]], "float32")
        # Residuals: 2 | 0 and -3 | none. The mean is over two samples.
        value, slope = value_and_slope(Expectile(ignore=ignore), y_true, y_pred)
        assert value == pytest.approx((2.0 + 4.5 / 2) / 2)
        np.testing.assert_allclose(slope, [[-1.0, 0], [0, 0.75], [0, 0]])
        value, slope = value_and_slope(
            HalfSumSquaredError(ignore=ignore), y_true, y_pred
        )
        assert value == pytest.approx((2.0 + 4.5) / 2)
        np.testing.assert_allclose(slope, [[-1.0, 0], [0, 1.5], [0, 0]])
        summed = HalfSumSquaredError(ignore=ignore, reduction="sum")
        assert float(summed(y_true, y_pred)) == pytest.approx(6.5)
        none = HalfSumSquaredError(ignore=ignore, reduction=None)
        np.testing.assert_allclose(none(y_true, y_pred), [2.0, 4.5, 0.0])


def test_an_unknown_feature_leaves_out_a_sample_whose_score_is_joint():
    y_true = np.array([[3.0, np.nan], [2.0, 4.0]], "float32")
    y_pred = normal((2, 6))
    value, slope = value_and_slope(EnergyScore(ignore="nan"), y_true, y_pred)
    alone, alone_slope = value_and_slope(EnergyScore(), y_true[1:], y_pred[1:])
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_allclose(slope, [np.zeros(6), alone_slope[0]], rtol=1e-6)


def test_all_levels_of_an_unknown_feature_are_left_out():
    y_true = np.array([[3.0, np.nan]], "float32")
    y_pred = np.array([[1.0, 2.0, 5.0, 6.0]])  # two features at each of two levels
    value, slope = value_and_slope(Pinball([0.1, 0.9], ignore="nan"), y_true, y_pred)
    assert value == pytest.approx((0.1 * 2.0 + 0.1 * 2.0) / 2)
    np.testing.assert_allclose(slope, [[-0.05, 0, 0.05, 0]], rtol=1e-6)


def test_targets_without_an_axis_of_features_may_be_unknown():
    known = np.array([1.0, 3.0], "float32")
    for shape in ((3,), (3, 1)):
        y_true = np.array([1.0, np.nan, 3.0], "float32").reshape(shape)
        for y_pred in (np.zeros((3, 1)), np.zeros(3)):
            loss = HalfSumSquaredError(ignore="nan")
            assert float(loss(y_true, y_pred)) == pytest.approx(np.mean(known**2) / 2)


def test_labels_that_are_independent_are_unknown_one_by_one():
    logits = np.array([[0.5, -1.0], [2.0, 0.0]])
    loss = AsymmetricLoss(0.0, 0.0, 0.0, ignore=-1)
    entries = np.log1p(np.exp(np.where([[1, 0], [0, 1]], -logits, logits)))
    came = float(loss(np.array([[1, -1], [0, 1]]), logits))
    assert came == pytest.approx((entries[0, 0] + entries[1].mean()) / 2)


# Labels.


def test_unknown_labels_are_those_that_keras_ignores():
    logits, labels = normal((4, 3)), np.array([0, 255, 2, 255])
    theirs = SPARSE(from_logits=True, ignore_class=255)
    expected, expected_slope = value_and_slope(theirs, labels, logits)
    for dtype in ("uint8", "int32", "int64", "uint32", "float32"):
        for shape in ((4,), (4, 1)):
            y_true = labels.astype(dtype).reshape(shape)
            loss = PenalizedCrossentropy(ignore=255)
            value, slope = value_and_slope(loss, y_true, logits)
            np.testing.assert_allclose(value, expected, rtol=1e-6)
            np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-7)


def test_a_label_that_the_dtype_cannot_hold_ignores_nothing():
    logits = normal((2, 3))
    for labels in (np.array([0, 1], "uint8"), np.array([False, True])):
        loss = PenalizedCrossentropy(ignore=-1)
        plain = float(PenalizedCrossentropy()(labels, logits))
        assert float(loss(labels, logits)) == plain
    assert float(PenalizedCrossentropy(ignore="nan")(labels, logits)) == plain


def test_a_label_to_ignore_is_refused_beside_rows_of_probabilities():
    rows = np.eye(3)
    with pytest.raises(ValueError, match="ignore"):
        PenalizedCrossentropy(ignore=0)(rows, rows)
    rows[1] = -1.0
    expected = float(PenalizedCrossentropy()(rows[::2], rows[::2]))
    assert float(PenalizedCrossentropy(ignore=-1)(rows, rows)) == pytest.approx(
        expected, rel=1e-6
    )


def test_a_teachers_logits_are_no_labels():
    loss = Distillation(ignore=-1)
    teacher = np.array([[-1.0, 2.0], [0.0, 1.0]])
    y_true = loss.targets(np.array([0, -1]), teacher)
    expected = float(Distillation()(y_true[:1], normal((2, 2))[:1]))
    assert float(loss(y_true, normal((2, 2)))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ignore", [True, "unknown", float("inf"), [1]])
def test_what_no_target_can_be_is_refused(ignore):
    with pytest.raises(ValueError, match="`ignore`"):
        HalfSumSquaredError(ignore=ignore)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_large_integers_stay_exact(dtype):
    """Float32 has one number for both of these."""
    for name, make in cases("loss"):
        loss = make()
        if loss.exact_targets:
            came = loss.as_target(np.array([2**24 + 1], dtype), "float32")
            assert int(came[0]) == 2**24 + 1, name
    ids = np.array([2**24, 2**24 + 1, 2**24, 2**24 + 1], dtype)
    rows = normal((4, 3))
    for loss in (NTXent(), SupervisedContrastive(), NTXent(ignore=7)):
        small = float(loss((ids - 2**24).astype(dtype), rows))
        assert float(loss(ids, rows)) == small
    times = np.array([[2**24, 1], [2**24 + 1, 1]], dtype)
    risk = np.array([[0.3], [-0.2]])
    expected = np.log1p(np.exp(-0.5)) / 2
    assert float(CoxPartialLikelihood()(times, risk)) == pytest.approx(expected)
    labels = np.array([2**24, 2**24 + 1], dtype)
    loss = PenalizedCrossentropy(ignore=2**24)
    assert np.isnan(float(loss(labels, rows[:2])))  # the other is no label of these


# Weights and masks.


def test_fit_and_evaluate_weigh_samples_where_keras_meets_another_axis():
    for batch in (5, 6):
        p, y = normal((batch, 5, 3)), normal((batch, 5, 3), 1)
        values = np.sum((p - y) ** 2, -1) / 2
        first = np.linspace(0, 2, batch)
        for w in (first, first[:, None], np.abs(y[..., 0]), np.abs(y[..., :1])):
            wide = np.broadcast_to(w.reshape(batch, -1), values.shape)
            # A model for each: TensorFlow's Keras loses the rank of a weight that
            # comes in one and in another.
            model = keras.Sequential([keras.Input((5, 3)), keras.layers.Identity()])
            model.compile("sgd", "half_sum_squared_error")
            came = model.evaluate(p, y, sample_weight=w, batch_size=batch, verbose=0)
            assert came == pytest.approx(np.mean(values * wide), rel=1e-5)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_fit_stays_finite_where_a_masked_target_is_not(hole):
    x = np.array([[[1.0], [0.0]], [[2.0], [3.0]]])
    y = np.array([[[1.0], [hole]], [[2.0], [hole]]])
    weight = np.array([[1.0, 1.0], [1.0, 0.0]])
    inputs = keras.Input((2, 1))
    outputs = keras.layers.Dense(1)(keras.layers.Masking()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", HalfSumSquaredError())
    model.fit(x, y, sample_weight=weight, epochs=2, verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


def test_fit_moves_nothing_where_no_target_is_known():
    x, y = normal((4, 2)), np.full((4, 1), np.nan)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), Expectile(ignore=NAN))
    before = model.get_weights()
    assert model.fit(x, y, verbose=0).history["loss"] == [0.0]
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_a_model_keeps_what_its_loss_ignores(tmp_path):
    x, y = normal((4, 2)), normal((4, 1), 1)
    y[1] = np.nan
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", Expectile(ignore=NAN))
    expected = model.evaluate(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(expected)


def test_who_is_absent_is_not_at_risk():
    y = np.array([[1.0, 1], [2.0, 1], [3.0, 0], [4.0, 1]])
    risk = normal((4, 1))
    mask, kept = np.array([True, True, True, False]), slice(0, 3)
    for ties in ("efron", "breslow"):
        loss = CoxPartialLikelihood(ties)
        masked = compat.carry_mask(ops.convert_to_tensor(risk), mask)
        alone = float(loss(y[kept], risk[kept]))
        assert float(loss(y, masked)) == pytest.approx(alone, rel=1e-6)
        weight = mask.astype("float32")
        assert float(loss(y, risk, weight)) == pytest.approx(0.75 * alone, rel=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none", None])
def test_a_reduction_is_that_of_keras(reduction):
    values = ops.convert_to_tensor(normal((4, 3)), "float32")
    for weight in (None, normal((4, 3), 1)):
        theirs = MSE(reduction=reduction)
        theirs.call = lambda _, values: values
        expected = ops.convert_to_numpy(theirs(0.0, values, weight))
        came = ops.convert_to_numpy(reduced(values, reduction, weight))
        np.testing.assert_allclose(came, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (1, 3), (3, 2), (3, 3, 2), (2, 3)])
def test_a_weight_or_a_mask_of_another_shape_is_refused(shape):
    values = ops.convert_to_tensor(normal((3, 3)), "float32")
    with pytest.raises(ValueError, match=r"sample_weight.*\(3, 3\)"):
        reduced(values, "sum", np.ones(shape))
    with pytest.raises(ValueError, match=r"mask.*\(3, 3\)"):
        reduced(values, "sum", masks=[np.ones(shape, "bool")])


def test_a_scalar_cannot_be_weighed():
    with pytest.raises(ValueError, match="sample_weight"):
        reduced(ops.convert_to_tensor(1.0), "sum", np.ones(3))
    assert float(reduced(ops.convert_to_tensor(1.5), "sum")) == 1.5


# Losses of Keras and functions, hosted.


@pytest.mark.parametrize("steps", [(), (5,), (4, 5), (2, 4, 5)])
def test_a_hosted_loss_is_weighed_by_its_samples(steps):
    shape = (5, *steps)
    y_true, y_pred = normal((*shape, 3)), normal((*shape, 3), 1)
    values = np.mean((y_true - y_pred) ** 2, axis=-1)
    first = np.linspace(0, 2, 5)
    wide = np.broadcast_to(first.reshape(5, *[1] * len(steps)), shape)
    for w in (first, first[:, None], wide, wide[..., None]):
        for reduction, expected in (
            ("sum", np.sum(values * wide)),
            ("sum_over_batch_size", np.mean(values * wide)),
            ("mean_with_sample_weight", np.sum(values * wide) / np.sum(wide)),
        ):
            came = hosted(MSE(reduction=reduction))(y_true, y_pred, w)
            assert float(came) == pytest.approx(expected, rel=1e-5)
    came = hosted(MSE(reduction=None))(y_true, y_pred, first)
    np.testing.assert_allclose(came, values * wide, rtol=1e-5)


def test_a_hosted_loss_of_one_axis_keeps_its_samples():
    y_true, y_pred, weight = normal(4), normal(4, 1), np.arange(4.0)
    expected = np.mean((y_true - y_pred) ** 2 * weight)
    function = keras.losses.mean_squared_error
    for loss in (MSE(), function, kp.losses.get("mean_squared_error")):
        for true, pred in (
            (y_true, y_pred),
            (y_true, y_pred[:, None]),
            (y_true[:, None], y_pred),
        ):
            came = float(hosted(loss)(true, pred, weight))
            assert came == pytest.approx(expected, rel=1e-5)


def test_a_hosted_loss_may_have_unknown_targets_and_those_of_keras():
    y_true, y_pred = normal((4, 3)), normal((4, 3), 1)
    y_true[1, 2] = np.nan
    known = [0, 2, 3]
    expected, slope = value_and_slope(MSE(), y_true[known], y_pred[known])
    value, came = value_and_slope(hosted(MSE(), NAN), y_true, y_pred)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(came[known], slope, rtol=1e-5)
    np.testing.assert_array_equal(came[1], 0.0)
    labels = np.array([0, 255, 2, -1])
    theirs = SPARSE(from_logits=True, ignore_class=255)
    expected = float(SPARSE(from_logits=True)(labels[::2], y_pred[::2]))
    assert float(hosted(theirs, -1)(labels, y_pred)) == pytest.approx(expected)
    assert hosted(Expectile(), -1).ignore == -1
    loss = Expectile(ignore=-1)
    assert hosted(loss) is loss
    with pytest.raises(ValueError, match="ignore"):
        hosted(loss, NAN)


# Tiny rows.


@pytest.mark.parametrize("cls", [NTXent, SupervisedContrastive])
def test_rows_of_any_length_have_the_slope_of_their_direction(cls):
    """A loss of directions: the slope in a row is one over the row's length."""
    rows, ids, loss = normal((4, 3)), np.array([0, 0, 1, 1]), cls(0.5)
    value, slope = value_and_slope(loss, ids, rows)
    for length in (1e-18, 1e-19, 1e-25, 1e18, 1e30):
        scales = np.array([[length], [1.0], [1.0], [1.0]])
        scaled, steep = value_and_slope(loss, ids, rows * scales)
        np.testing.assert_allclose(scaled, value, rtol=1e-5)
        assert np.all(np.isfinite(steep))
        np.testing.assert_allclose(steep * scales, slope, rtol=1e-4, atol=1e-6)
    for length in (1e-37, 0.0):
        scales = np.array([[length], [1.0], [1.0], [1.0]])
        assert np.all(np.isfinite(value_and_slope(loss, ids, rows * scales)[1]))


def test_samples_and_config_hold_the_option():
    loss = Expectile(ignore=np.int64(3))
    assert json.loads(json.dumps(loss.get_config()))["ignore"] == 3
    assert samples(loss, np.array([[3.0], [1.0]]), np.zeros((2, 1)))[0] == 0.0
