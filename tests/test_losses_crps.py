"""Scores against scoringrules, by simulation, and by what makes them proper."""

import importlib

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from loss_proofs import agrees, close, normal, samples, slope

from keras_penalties.losses import EnergyScore, EnsembleCRPS, GaussianCRPS

seeds = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def scoringrules():
    """Imported where it is needed: the import compiles for seconds."""
    return importlib.import_module("scoringrules")


def test_gaussian_is_scoringrules(scoringrules):
    y, m, s = normal(30, 1, 2.0), normal(30, 2), normal(30, 3)
    expected = scoringrules.crps_normal(y, m, np.exp(s))
    agrees(GaussianCRPS(), y, np.stack([m, s], axis=-1), expected)


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
def test_ensemble_is_scoringrules(scoringrules, fair, estimator):
    y, members = normal((20, 2), 1), normal((20, 5, 2), 2)
    of_each = scoringrules.crps_ensemble(
        y, np.moveaxis(members, 1, -1), estimator=estimator
    )
    loss = EnsembleCRPS(fair)
    agrees(loss, y, members.reshape(20, 10), of_each.mean(axis=-1))
    agrees(loss, y[:, 0], members[..., 0], of_each[:, 0])


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
def test_energy_score_is_scoringrules(scoringrules, fair, estimator):
    y, members = normal((20, 3), 1), normal((20, 4, 3), 2)
    expected = scoringrules.es_ensemble(y, members, estimator=estimator)
    agrees(EnergyScore(fair), y, members.reshape(20, 12), expected)


@given(seeds, st.booleans())
def test_one_feature_makes_them_equal(seed, fair):
    y, members = normal(6, seed), normal((6, 4), seed + 1)
    close(
        samples(EnergyScore(fair), y, members), samples(EnsembleCRPS(fair), y, members)
    )


@given(seeds)
def test_the_members_order_does_not_matter_but_ties_are_fine(seed):
    y, members = normal(6, seed), normal((6, 4), seed + 1)
    members[:, 1] = members[:, 0]
    for cls in (EnsembleCRPS, EnergyScore):
        before = samples(cls(), y, members)
        close(samples(cls(), y, members[:, ::-1]), before)
        assert np.all(before >= -1e-6)
        assert np.all(np.isfinite(slope(cls(), y, members)))


@given(seeds)
def test_energy_score_is_blind_to_rotations(seed):
    y, members = normal((5, 3), seed), normal((5, 4, 3), seed + 1)
    q, _ = np.linalg.qr(normal((3, 3), seed + 2))
    turned = samples(EnergyScore(), y @ q, (members @ q).reshape(5, 12))
    expected = samples(EnergyScore(), y, members.reshape(5, 12))
    np.testing.assert_allclose(turned, expected, rtol=1e-4, atol=1e-5)


@given(seeds)
def test_point_forecasts_get_the_absolute_error(seed):
    y, m = normal((6, 2), seed), normal((6, 2), seed + 1)
    absolute = ops.convert_to_numpy(
        keras.losses.MeanAbsoluteError(reduction=None)(y, m)
    )
    np.testing.assert_allclose(samples(EnsembleCRPS(), y, m), absolute, rtol=1e-5)
    sharp = np.concatenate([m, np.full((6, 2), -30.0)], axis=-1)
    np.testing.assert_allclose(samples(GaussianCRPS(), y, sharp), absolute, rtol=1e-5)


def test_a_large_ensemble_comes_near_the_distribution():
    rng = np.random.default_rng(0)
    members = 0.5 + 2.0 * rng.normal(size=(1, 20000))
    for y in (-3.0, 0.0, 4.0):
        exact = samples(GaussianCRPS(), [y], [[0.5, np.log(2.0)]])
        for fair in (False, True):
            near = samples(EnsembleCRPS(fair), [y], members)
            np.testing.assert_allclose(near, exact, rtol=0.03)


def test_gaussian_is_proper():
    """Over draws of a normal, its own parameters score best."""
    y = 0.5 + 2.0 * np.random.default_rng(1).normal(size=4000)

    def mean_score(m, log_s):
        rows = np.tile([m, log_s], (4000, 1))
        return samples(GaussianCRPS(), y, rows).mean()

    best = mean_score(y.mean(), np.log(y.std()))
    for m, s in ((0.3, 0), (-0.3, 0), (0, 0.2), (0, -0.2)):
        assert mean_score(y.mean() + m, np.log(y.std()) + s) > best


def test_a_fair_score_is_unbiased():
    """In expectation the members' number does not matter, as it does if biased."""
    rng = np.random.default_rng(2)
    y, members = rng.normal(size=20000), rng.normal(size=(20000, 8))
    expected = 1 / np.sqrt(np.pi)  # of a standard normal about itself
    for m in (2, 8):
        fair = samples(EnsembleCRPS(fair=True), y, members[:, :m]).mean()
        biased = samples(EnsembleCRPS(), y, members[:, :m]).mean()
        assert fair == pytest.approx(expected, abs=0.02)
        assert biased == pytest.approx(expected * (1 + 1 / m), abs=0.02)


def test_bad_arguments_and_shapes_are_refused():
    with pytest.raises(ValueError, match="fair"):
        EnsembleCRPS(fair=1)
    with pytest.raises(ValueError, match="two members"):
        EnergyScore(fair=True)(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="y_true"):
        EnsembleCRPS()(np.zeros((3, 2)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="y_true"):
        GaussianCRPS()(np.zeros(3), np.zeros((3, 3)))
