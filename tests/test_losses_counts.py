"""Deviances and counts against scikit-learn, scipy, torch and statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_proofs import agrees, close, exactly, normal, samples, slope
from oracles import torch
from scipy import stats
from sklearn.metrics import (
    mean_gamma_deviance,
    mean_poisson_deviance,
    mean_tweedie_deviance,
)
from statsmodels.discrete.count_model import ZeroInflatedNegativeBinomialP

from keras_penalties.losses import NegativeBinomial, TweedieDeviance

seeds = st.integers(0, 10**6)
powers = st.sampled_from([1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0])


def amounts(n, seed=0, zeros=False):
    drawn = exactly(np.random.default_rng(seed).gamma(1.5, 2.0, n))
    if zeros:
        drawn[::3] = 0.0
    return drawn


def by_rows(metric, y, mean, **arguments):
    return [metric([a], [b], **arguments) for a, b in zip(y, mean, strict=True)]


@pytest.mark.parametrize("power", [1.0, 1.01, 1.4999, 1.5, 1.9, 2.0, 2.2, 3.0])
def test_deviance_is_scikit_learns(power):
    y, eta = amounts(30, 1, zeros=power < 2), normal(30, 2)
    expected = by_rows(mean_tweedie_deviance, y, np.exp(eta), power=power)
    agrees(TweedieDeviance(power), y, eta, expected)


def test_poisson_and_gamma_are_members():
    y, eta = amounts(30, 1), normal(30, 2)
    for power, metric in ((1, mean_poisson_deviance), (2, mean_gamma_deviance)):
        agrees(TweedieDeviance(power), y, eta, by_rows(metric, y, np.exp(eta)))


@given(powers, seeds)
def test_deviance_is_least_at_the_mean(power, seed):
    y = amounts(9, seed, zeros=power < 2)
    at_mean = np.full(9, np.log(y.mean()))
    gradient = np.sum(slope(TweedieDeviance(power), y, at_mean))
    assert abs(gradient) < 1e-3 * (1 + np.sum(np.abs(y)))
    value = samples(TweedieDeviance(power), y, at_mean).sum()
    for step in (-0.1, 0.1):
        assert samples(TweedieDeviance(power), y, at_mean + step).sum() > value


@given(powers, seeds)
def test_deviance_is_0_at_the_target_and_scales(power, seed):
    y, eta = amounts(9, seed), normal(9, seed)
    loss = TweedieDeviance(power)
    np.testing.assert_allclose(samples(loss, y, np.log(y)), 0.0, atol=2e-5)
    # Units: y and μ times c give the deviance times c^(2 - power).
    scaled = samples(loss, y * 2.0, eta + np.log(2.0))
    expected = samples(loss, y, eta) * 2.0 ** (2 - power)
    np.testing.assert_allclose(scaled, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("limit", "near"), [(1, 1 + 1e-12), (2, 2 - 1e-12)])
def test_deviance_nears_its_limits(limit, near):
    y, eta = amounts(20, 4), normal(20, 5)
    at_limit = samples(TweedieDeviance(limit), y, eta)
    close_by = samples(TweedieDeviance(near), y, eta)
    np.testing.assert_allclose(close_by, at_limit, rtol=1e-4, atol=1e-5)


def test_targets_outside_the_domain_are_not_passed_over():
    assert not np.isfinite(samples(TweedieDeviance(2), [0.0], [0.0]))
    assert not np.isfinite(samples(TweedieDeviance(1.5), [-1.0], [0.0]))
    assert not np.isfinite(samples(NegativeBinomial(), [-1.0], [[0.0, 0.0]]))


def negative_binomial(y, log_mean, log_alpha):
    size = np.exp(-log_alpha)
    return -stats.nbinom.logpmf(y, size, 1 / (1 + np.exp(log_mean + log_alpha)))


def test_negative_binomial_is_scipys():
    y = np.random.default_rng(1).poisson(4.0, 60).astype("float64")
    log_mean, log_alpha = normal(60, 2), normal(60, 3)
    expected = negative_binomial(y, log_mean, log_alpha)
    agrees(NegativeBinomial(), y, np.stack([log_mean, log_alpha], -1), expected)


def test_negative_binomial_of_large_counts_is_scipys():
    """Where a difference of log-gammas would lose all digits in float32."""
    y = np.array([1e3, 1e4, 1e5, 1e6])
    log_mean = exactly(np.log(y * 1.01))
    for log_alpha in (-12.0, -4.0, 0.0, 3.0):
        both = np.stack([log_mean, np.full(4, log_alpha)], -1)
        mean, size = np.exp(log_mean), np.exp(-log_alpha)
        expected = -stats.nbinom.logpmf(y, size, size / (size + mean))
        values = samples(NegativeBinomial(), y, both)
        # Float32 knows exp(13.8) to 2e-6: the bound is that error times the slope.
        slopes = np.abs(y - mean) / (1 + mean / size)
        room = 1e-5 * expected + 2e-6 * slopes
        assert np.all(np.abs(values - expected) <= room)


def test_zero_inflated_is_statsmodels():
    rng = np.random.default_rng(5)
    y = rng.poisson(2.0, 40) * rng.integers(0, 2, 40)
    log_mean, log_alpha, logit = 0.5, -0.75, -0.25
    model = ZeroInflatedNegativeBinomialP(y, np.ones((40, 1)), p=2)
    expected = -model.loglikeobs(np.array([logit, log_mean, np.exp(log_alpha)]))
    both = np.tile([log_mean, log_alpha, logit], (40, 1))
    agrees(NegativeBinomial(zero_inflated=True), y, both, expected)


@given(seeds)
def test_zero_inflated_by_nothing_is_plain(seed):
    y = np.random.default_rng(seed).poisson(2.0, 9)
    both = normal((9, 2), seed)
    never = np.concatenate([both, np.full((9, 1), -1e4)], axis=-1)
    close(
        samples(NegativeBinomial(True), y, never), samples(NegativeBinomial(), y, both)
    )


@given(seeds)
def test_probabilities_sum_to_1(seed):
    parameters = normal(3, seed)
    counts = np.arange(4000.0)
    for inflated in (False, True):
        rows = np.tile(parameters[: 3 if inflated else 2], (4000, 1))
        chances = np.exp(-samples(NegativeBinomial(inflated), counts, rows))
        np.testing.assert_allclose(chances.sum(), 1.0, atol=1e-4)


@given(seeds)
def test_without_dispersion_it_is_poissons(seed):
    y, log_mean = np.random.default_rng(seed).poisson(3.0, 9), normal(9, seed)
    expected = -stats.poisson.logpmf(y, np.exp(log_mean))
    both = np.stack([log_mean, np.full(9, -25.0)], axis=-1)
    np.testing.assert_allclose(
        samples(NegativeBinomial(), y, both), expected, rtol=1e-5, atol=1e-5
    )
    torchs = torch.nn.functional.poisson_nll_loss(
        torch.tensor(log_mean), torch.tensor(y), reduction="none"
    ).numpy()
    deviance = samples(TweedieDeviance(1), y.astype("float64"), log_mean)
    # Half the deviance and torch's loss differ by what y alone decides.
    saturated = np.where(y > 0, y * np.log(np.maximum(y, 1)) - y, 0.0)
    np.testing.assert_allclose(deviance / 2 - saturated, torchs, rtol=1e-4, atol=1e-4)


def test_bad_arguments_are_refused():
    for power in (0.0, 0.5, 3.5):
        with pytest.raises(ValueError, match="power"):
            TweedieDeviance(power)
    with pytest.raises(ValueError, match="zero_inflated"):
        NegativeBinomial(zero_inflated=1)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="y_true"):
        TweedieDeviance()(np.ones((3, 1)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="3 for each of 1"):
        NegativeBinomial(True)(np.ones(3), np.ones((3, 2)))
