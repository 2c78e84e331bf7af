"""Likelihoods against scipy, torch and statsmodels, and the log-gamma beneath."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from loss_proofs import DTYPES, agrees, close, exactly, normal, samples, slope
from oracles import torch
from scipy import special, stats

from keras_penalties import autodiff, numerics
from keras_penalties.losses import GaussianNLL, LaplaceNLL, StudentTNLL

seeds = st.integers(0, 10**6)


def packed(*parameters):
    """One column for each parameter, of one feature."""
    return np.stack(parameters, axis=-1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stirling_error_makes_scipys_log_gamma(dtype):
    x = exactly(np.concatenate([np.logspace(-12, 12, 500), np.linspace(0.1, 30, 500)]))
    t = ops.convert_to_tensor(x, dtype)
    rest = ops.convert_to_numpy(numerics.stirling_error(t)).astype("float64")
    bracket = (x - 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi)
    # Relative to the bracket: a log-gamma near its roots 1 and 2 is a difference.
    bound = {"float32": 3e-6, "float64": 1e-14}[dtype] * (1 + np.abs(bracket))
    assert np.all(np.abs(bracket + rest - special.gammaln(x)) <= bound)
    total = autodiff.gradient(lambda z: ops.sum(numerics.stirling_error(z)), t)
    digamma = np.log(x) - 0.5 / x + ops.convert_to_numpy(total)
    bound = {"float32": 5e-6, "float64": 1e-13}[dtype] * (1 + 1 / x + np.abs(np.log(x)))
    assert np.all(np.abs(digamma - special.digamma(x)) <= bound)


def test_bounded_holds_a_value_but_not_its_slope():
    x = ops.convert_to_tensor([-1e30, -5.0, 0.0, 5.0, 1e30], "float32")
    held = ops.convert_to_numpy(numerics.bounded(x, 2.0))
    assert held.tolist() == [-2.0, -2.0, 0.0, 2.0, 2.0]
    gradient = autodiff.gradient(lambda z: ops.sum(numerics.bounded(z, 2.0)), x)
    assert ops.convert_to_numpy(gradient).tolist() == [1.0] * 5


def test_gaussian_is_scipys():
    y, m, s = normal(30, 1), normal(30, 2), normal(30, 3)
    expected = -stats.norm.logpdf(y, m, np.exp(s))
    agrees(GaussianNLL(), y, packed(m, s), expected)
    torchs = torch.nn.functional.gaussian_nll_loss(
        *map(torch.tensor, (m, y, np.exp(2 * s))), full=True, eps=0, reduction="none"
    )
    agrees(GaussianNLL(), y, packed(m, s), torchs.numpy())


def test_laplace_is_scipys():
    y, m, s = normal(30, 1), normal(30, 2), normal(30, 3)
    agrees(LaplaceNLL(), y, packed(m, s), -stats.laplace.logpdf(y, m, np.exp(s)))


@pytest.mark.parametrize("df", [0.5, 1.0, 3.0, 100.0])
def test_student_is_scipys(df):
    y, m, s = normal(30, 1, 3.0), normal(30, 2), normal(30, 3)
    expected = -stats.t.logpdf(y, df, m, np.exp(s))
    agrees(StudentTNLL(df), y, packed(m, s), expected)
    logs = np.full(30, np.log(df))
    values = samples(StudentTNLL(), y, packed(m, s, logs))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_student_with_its_own_degrees_of_freedom_is_scipys():
    y, m, s, d = (normal(50, seed, 2.0) for seed in range(4))
    expected = -stats.t.logpdf(y, np.exp(d), m, np.exp(s))
    agrees(StudentTNLL(), y, packed(m, s, d), expected)


def test_parameters_are_packed_one_after_the_other():
    """All means, then all log scales: what `Concatenate([means, log_scales])` gives."""
    y, m, s = normal((5, 4, 2), 1), normal((5, 4, 2), 2), normal((5, 4, 2), 3)
    both = np.concatenate([m, s], axis=-1)
    expected = np.mean(-stats.norm.logpdf(y, m, np.exp(s)), axis=-1)
    agrees(GaussianNLL(), y, both, expected)
    one = np.mean(-stats.norm.logpdf(y[..., 0], m[..., 0], np.exp(s[..., 0])), -1)
    means = samples(GaussianNLL(), y[..., 0], packed(m[..., 0], s[..., 0]))
    np.testing.assert_allclose(means.mean(-1), one, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_beta_weighs_by_the_variance_without_its_gradient(beta):
    y, m, s = normal(20, 1), normal(20, 2), normal(20, 3)
    weight = np.exp(2 * beta * s)
    loss, plain = GaussianNLL(beta), GaussianNLL()
    expected = samples(plain, y, packed(m, s)) * weight
    close(samples(loss, y, packed(m, s)), expected, loose=10)
    gradient = slope(plain, y, packed(m, s)) * weight[:, None]
    close(slope(loss, y, packed(m, s)), gradient, loose=10)
    if beta == 1.0:
        close(slope(loss, y, packed(m, s))[:, 0], m - y, loose=10)
    assert GaussianNLL.from_config(loss.get_config()).beta == beta


@pytest.mark.parametrize("cls", [GaussianNLL, LaplaceNLL])
@given(seed=seeds)
def test_best_at_the_samples_own_location_and_scale(cls, seed):
    y = normal(21, seed, 2.0)
    if cls is GaussianNLL:
        location, scale = y.mean(), y.std()
    else:
        location, scale = np.median(y), np.abs(y - np.median(y)).mean()
    best = np.array([location, np.log(scale)])
    gradient = np.sum(slope(cls(), y, np.tile(best, (21, 1))), axis=0)
    # Float32 sums 21 terms that cancel.
    np.testing.assert_allclose(gradient, 0.0, atol=2e-4)
    value = samples(cls(), y, np.tile(best, (21, 1))).sum()
    for step in ([0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]):
        assert samples(cls(), y, np.tile(best + step, (21, 1))).sum() > value


@given(seed=seeds)
def test_shift_and_scale_of_the_data_move_the_parameters(seed):
    y, m, s, d = (normal(6, seed + k) for k in range(4))
    c = 0.75
    for cls, rest in ((GaussianNLL, []), (LaplaceNLL, []), (StudentTNLL, [d])):
        before = samples(cls(), y, packed(m, s, *rest))
        moved = packed(m * math.exp(c) + 1, s + c, *rest)
        after = samples(cls(), y * math.exp(c) + 1, moved)
        np.testing.assert_allclose(after, before + c, rtol=1e-4, atol=1e-4)


@given(seed=seeds)
def test_limits_reach_the_plain_losses(seed):
    y, m = normal((6, 2), seed), normal((6, 2), seed + 1)
    unit = np.concatenate([m, np.zeros_like(m)], axis=-1)
    squared = ops.convert_to_numpy(keras.losses.MeanSquaredError(reduction=None)(y, m))
    absolute = ops.convert_to_numpy(
        keras.losses.MeanAbsoluteError(reduction=None)(y, m)
    )
    gaussian = samples(GaussianNLL(), y, unit)
    laplace = samples(LaplaceNLL(), y, unit)
    rest = 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(gaussian, rest + squared / 2, rtol=1e-5)
    np.testing.assert_allclose(laplace, math.log(2) + absolute, rtol=1e-5)
    np.testing.assert_allclose(samples(StudentTNLL(1e9), y, unit), gaussian, rtol=1e-5)
    cauchy = np.mean(-stats.cauchy.logpdf(y, m), axis=-1)
    np.testing.assert_allclose(samples(StudentTNLL(1.0), y, unit), cauchy, rtol=1e-5)


def test_log_parameters_beyond_the_bound_are_drawn_back():
    y = np.array([1.0])
    for log_scale, sign in ((1e4, 1.0), (-1e4, -1.0)):
        gradient = slope(GaussianNLL(), y, np.array([[0.0, log_scale]]))
        assert np.all(np.isfinite(gradient))
        assert np.sign(gradient[0, 1]) == sign


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="beta"):
        GaussianNLL(beta=1.5)
    with pytest.raises(ValueError, match="df"):
        StudentTNLL(df=0.0)


@pytest.mark.parametrize(
    ("loss", "true_shape", "pred_shape"),
    [
        (GaussianNLL(), (4,), (4,)),
        (GaussianNLL(), (4, 1), (4, 1)),
        (GaussianNLL(), (4, 2), (4, 2)),
        (LaplaceNLL(), (4,), (3, 2)),
        (StudentTNLL(), (4,), (4, 2)),
        (StudentTNLL(3.0), (4,), (4, 3)),
    ],
)
def test_bad_shapes_are_refused(loss, true_shape, pred_shape):
    with pytest.raises(ValueError, match="y_true"):
        loss(np.zeros(true_shape), np.zeros(pred_shape))
