"""Pinball, Expectile and GeneralRobust against scikit-learn, scipy and kornia."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_proofs import agrees, close, exactly, normal, samples, slope
from oracles import kornia, torch
from scipy import optimize, special, stats
from sklearn.metrics import mean_pinball_loss

from keras_penalties.losses import Expectile, GeneralRobust, Pinball

levels = st.sampled_from([0.05, 0.3, 0.5, 0.75, 0.99])
seeds = st.integers(0, 10**6)


def by_rows(metric, y, m, **arguments):
    return [metric([a], [b], **arguments) for a, b in zip(y, m, strict=True)]


@pytest.mark.parametrize("q", [0.1, 0.5, 0.8])
def test_pinball_is_scikit_learns(q):
    y, m = normal(20, 1, 3.0), normal(20, 2, 3.0)
    expected = by_rows(mean_pinball_loss, y, m, alpha=q)
    agrees(Pinball(q), y, m, expected)
    agrees(Pinball([q]), y[:, None], m[:, None], expected)


def test_several_levels_and_features_are_packed_level_by_level():
    quantiles, y = [0.1, 0.5, 0.9], normal((7, 2), 1)
    m = normal((7, 3, 2), 2)
    parts = [
        by_rows(mean_pinball_loss, y[:, k], m[:, i, k], alpha=q)
        for i, q in enumerate(quantiles)
        for k in range(2)
    ]
    agrees(Pinball(quantiles), y, m.reshape(7, 6), np.mean(parts, axis=0))


@given(levels, seeds)
def test_smooth_pinball_is_the_envelope(q, seed):
    """`min_u pinball(u) + (r - u)²/2d`, by a solver that knows no formula for it."""
    r, d = float(normal((), seed, 2.0)), 0.7

    def objective(u):
        return max(q * u, (q - 1) * u) + (r - u) ** 2 / (2 * d)

    # Convex, and smooth on each side of 0: the least of the three candidates.
    sides = [
        optimize.minimize_scalar(
            objective, bounds=ends, method="bounded", options={"xatol": 1e-12}
        ).fun
        for ends in ((-20, 0), (0, 20))
    ]
    value = samples(Pinball(q, smoothing=d), [r], [0.0])
    np.testing.assert_allclose(value, min(*sides, objective(0)), rtol=1e-5, atol=1e-6)


@given(levels, seeds)
def test_smoothing_lowers_by_its_bound_at_most(q, seed):
    y, m, d = normal(8, seed), normal(8, seed + 1), 0.5
    lowered = samples(Pinball(q), y, m) - samples(Pinball(q, smoothing=d), y, m)
    assert np.all(lowered >= -1e-6)
    assert np.all(lowered <= max(q, 1 - q) ** 2 * d / 2 + 1e-6)


@given(levels, seeds)
def test_the_best_constant_is_the_quantile(q, seed):
    y = normal(101, seed)
    each = np.broadcast_to(y[:, None], (101, 101))
    best = y[np.argmin(samples(Pinball(q), np.tile(y, (101, 1)), each))]
    below, upto = np.mean(y < best), np.mean(y <= best)
    assert below <= q + 1e-9
    assert upto >= q - 1e-9


def test_pinball_has_slope_0_at_the_kink():
    assert np.all(slope(Pinball(0.3), np.zeros(3), np.zeros(3)) == 0.0)


@given(seeds)
def test_the_median_is_half_the_absolute_error(seed):
    y, m = normal((6, 2), seed), normal((6, 2), seed + 1)
    absolute = keras.losses.MeanAbsoluteError(reduction=None)
    np.testing.assert_allclose(2 * samples(Pinball(), y, m), absolute(y, m), 1e-5)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_expectile_is_scipys(tau):
    """scipy.stats.expectile is the constant where the gradient vanishes."""
    y = normal(50, 3)
    best = stats.expectile(y, tau)
    gradient = slope(Expectile(tau), y, np.full(50, best))
    assert abs(np.sum(gradient)) < 2e-5
    residual = y - 0.25
    weights = np.where(residual < 0, 1 - tau, tau)
    agrees(Expectile(tau), y, np.full(50, 0.25), weights * residual**2)


@given(seeds)
def test_the_middle_expectile_is_half_the_squared_error(seed):
    y, m = normal((6, 2), seed), normal((6, 2), seed + 1)
    squared = keras.losses.MeanSquaredError(reduction=None)
    np.testing.assert_allclose(2 * samples(Expectile(), y, m), squared(y, m), 1e-5)


@given(levels, seeds)
def test_mirrored_data_mirror_the_level(q, seed):
    y, m = normal(6, seed), normal(6, seed + 1)
    for loss in (Expectile, Pinball):
        close(samples(loss(q), y, m), samples(loss(1 - q), -y, -m))


# The named members, by whoever else computes them; scale 1.
def _charbonnier(r):
    return special.pseudo_huber(1.0, r)


def _kornia(name):
    def of_residuals(r):
        values = getattr(kornia.losses, name)(torch.tensor(r), torch.zeros(len(r)))
        return values.numpy()

    return of_residuals


@pytest.mark.parametrize(
    ("alpha", "oracle"),
    [
        (2.0, lambda r: 0.5 * r**2),
        (1.0, _charbonnier),
        (1.0, _kornia("charbonnier_loss")),
        (0.0, _kornia("cauchy_loss")),
        (-2.0, _kornia("geman_mcclure_loss")),
        (-math.inf, _kornia("welsch_loss")),
    ],
)
def test_general_robust_has_the_known_members(alpha, oracle):
    r = normal(30, 5, 3.0)
    agrees(GeneralRobust(alpha), r[:, None], np.zeros((30, 1)), oracle(r))
    scaled = exactly(r * 2.0)
    agrees(GeneralRobust(alpha, scale=2.0), scaled[:, None], 0 * r[:, None], oracle(r))


@pytest.mark.parametrize("alpha", [1.5, 0.5, -0.5, -1.0, -8.0])
def test_general_robust_between_them_is_the_formula(alpha):
    r = normal(30, 6, 3.0)
    b = abs(alpha - 2)
    expected = b / alpha * ((r**2 / b + 1) ** (alpha / 2) - 1)
    agrees(GeneralRobust(alpha), r, np.zeros(30), expected)


@pytest.mark.parametrize(
    ("limit", "near"),
    [(0.0, 1e-9), (0.0, -1e-20), (0.0, 1e-40), (2.0, 2 - 1e-9), (-math.inf, -1e9)],
)
def test_general_robust_nears_its_limits(limit, near):
    r = normal(30, 7, 3.0)[:, None]
    at_limit = samples(GeneralRobust(limit), r, 0 * r)
    close_by = samples(GeneralRobust(near), r, 0 * r)
    np.testing.assert_allclose(close_by, at_limit, rtol=2e-6)


@given(seeds)
def test_general_robust_forgets_more_as_alpha_falls(seed):
    r = normal((5, 1), seed, 4.0)
    alphas = (2.0, 1.0, 0.0, -2.0, -math.inf)
    values = [samples(GeneralRobust(a), r, 0 * r) for a in alphas]
    assert np.all(np.diff(values, axis=0) <= 1e-6)
    assert np.all(values[-1] <= 1.0)


@given(seeds)
def test_general_robust_2_is_half_the_squared_error(seed):
    y, m = normal((6, 2), seed), normal((6, 2), seed + 1)
    squared = keras.losses.MeanSquaredError(reduction=None)
    values = samples(GeneralRobust(2.0), y, m)
    np.testing.assert_allclose(2 * values, squared(y, m), rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (Pinball, {"quantiles": 0.0}),
        (Pinball, {"quantiles": [0.5, 1.0]}),
        (Pinball, {"quantiles": []}),
        (Pinball, {"smoothing": -1.0}),
        (Expectile, {"level": 1.0}),
        (GeneralRobust, {"alpha": 2.5}),
        (GeneralRobust, {"alpha": math.nan}),
        (GeneralRobust, {"scale": 0.0}),
    ],
)
def test_bad_arguments_are_refused(cls, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        cls(**arguments)


@pytest.mark.parametrize(
    ("loss", "true_shape", "pred_shape"),
    [
        (Pinball(), (4,), (4, 2)),
        (Pinball([0.1, 0.9]), (4,), (4, 3)),
        (Pinball([0.1, 0.9]), (4, 2), (4, 2)),
        (Pinball([0.1, 0.9]), (4, 2), (3, 4)),
        (Expectile(), (4, 3), (4, 2)),
        (GeneralRobust(), (4, 1), (3, 1)),
    ],
)
def test_bad_shapes_are_refused(loss, true_shape, pred_shape):
    with pytest.raises(ValueError, match="y_true"):
        loss(np.zeros(true_shape), np.zeros(pred_shape))
