"""Cox's partial likelihood against statsmodels, with ties, and by its invariances."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_proofs import DTYPES, agrees, close, normal, samples, slope, total
from statsmodels.duration.hazard_regression import PHReg

from keras_penalties.losses import CoxPartialLikelihood

seeds = st.integers(0, 10**6)
ties = st.sampled_from(["breslow", "efron"])


def survival(n, seed, times=5):
    rng = np.random.default_rng(seed)
    y = np.stack([rng.integers(1, times + 1, n), rng.integers(0, 2, n)], axis=1)
    return y.astype("float64"), normal(n, seed)


def statsmodels_loss(y, risk, method):
    """PHReg with one covariate, the log risk, whose coefficient is 1."""
    model = PHReg(y[:, 0], risk[:, None], status=y[:, 1], ties=method)
    return -model.loglike(np.ones(1))


@pytest.mark.parametrize("method", ["breslow", "efron"])
@pytest.mark.parametrize("times", [3, 10, 10**6])
def test_the_sum_is_statsmodels(method, times):
    y, risk = survival(40, 1, times)
    expected = statsmodels_loss(y, risk, method)
    loss = CoxPartialLikelihood(method, reduction="sum")
    for dtype in DTYPES:
        config = {**loss.get_config(), "dtype": dtype}
        summed = CoxPartialLikelihood.from_config(config)(y, risk[:, None])
        bound = 1e-12 if dtype == "float64" else 1e-5
        assert float(summed) == pytest.approx(expected, rel=bound)


def test_each_event_has_its_own_value():
    y, risk = survival(12, 2, times=10**6)
    terms = [
        np.log(np.sum(np.exp(risk[y[:, 0] >= y[i, 0]]))) - risk[i] if y[i, 1] else 0.0
        for i in range(12)
    ]
    for method in ("breslow", "efron"):  # without ties they are one
        agrees(CoxPartialLikelihood(method), y, risk, terms)


@given(ties, seeds)
def test_shift_and_order_change_nothing(method, seed):
    y, risk = survival(8, seed, times=3)
    loss = CoxPartialLikelihood(method)
    values = samples(loss, y, risk)
    np.testing.assert_allclose(samples(loss, y, risk + 2.5), values, rtol=0, atol=1e-5)
    order = np.random.default_rng(seed).permutation(8)
    close(samples(loss, y[order], risk[order]), values[order])
    # A convex function of the risks that no shift changes: the slopes sum to 0.
    assert abs(np.sum(slope(loss, y, risk))) < 1e-5


@given(seeds)
def test_later_times_and_their_units_matter_by_order_only(seed):
    y, risk = survival(8, seed)
    stretched = np.stack([y[:, 0] ** 3 + 1, y[:, 1]], axis=1)
    for method in ("breslow", "efron"):
        loss = CoxPartialLikelihood(method)
        assert np.array_equal(samples(loss, stretched, risk), samples(loss, y, risk))


def test_the_first_to_die_should_have_the_highest_risk():
    y = np.array([[1.0, 1], [2.0, 1], [3.0, 1]])
    risks = [np.roll([2.0, 1.0, 0.0], k) for k in range(3)]
    losses = [total(CoxPartialLikelihood(), y, risk) for risk in risks]
    assert losses[0] == min(losses)


@pytest.mark.parametrize("method", ["breslow", "efron"])
def test_huge_whole_times_are_told_apart(method):
    """Float32 has one number for both of these times."""
    y = np.array([[2**24, 1], [2**24 + 1, 1], [2**24 + 2, 0]], dtype="int32")
    small = np.array([[1, 1], [2, 1], [3, 0]], dtype="int32")
    risk = normal(3, 1)
    loss = CoxPartialLikelihood(method)
    exact = samples(loss, small, risk, "float32")
    assert np.array_equal(samples(loss, y, risk, "float32"), exact)


@pytest.mark.parametrize("method", ["breslow", "efron"])
def test_no_event_and_one_sample_cost_nothing(method):
    loss = CoxPartialLikelihood(method)
    for y in (np.array([[1.0, 0], [2.0, 0]]), np.array([[1.0, 1.0]])):
        risk = normal((len(y), 1), 1)
        assert np.all(samples(loss, y, risk) == 0.0)
        assert np.all(slope(loss, y, risk) == 0.0)


@pytest.mark.parametrize("method", ["breslow", "efron"])
def test_extreme_risks_are_finite(method):
    y, _ = survival(8, 3, times=3)
    for risk in (np.linspace(-1e4, 1e4, 8), np.linspace(1e4, -1e4, 8)):
        values = samples(CoxPartialLikelihood(method), y, risk, "float32")
        assert np.all(np.isfinite(values))
        assert np.all(np.isfinite(slope(CoxPartialLikelihood(method), y, risk)))


def test_fit_learns_who_is_at_risk():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype("float32")
    time = rng.exponential(np.exp(-(x[:, 0] - 0.5 * x[:, 1])))
    event = (time < 2.0).astype("float32")
    y = np.stack([np.minimum(time, 2.0), event], axis=1).astype("float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1.0), loss="cox_partial_likelihood")
    model.fit(x, y, batch_size=200, epochs=40, verbose=0)
    expected = PHReg(y[:, 0], x, status=event, ties="efron").fit().params
    np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, atol=0.02)


def test_bad_arguments_and_shapes_are_refused():
    with pytest.raises(ValueError, match="ties"):
        CoxPartialLikelihood("exact")
    for true_shape, pred_shape in (((4,), (4, 1)), ((4, 2), (4, 2)), ((4, 2), (3, 1))):
        with pytest.raises(ValueError, match="y_true"):
            CoxPartialLikelihood()(np.ones(true_shape), np.ones(pred_shape))
