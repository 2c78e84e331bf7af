"""Total variation, SLOPE and the taut string, against scipy, skglm and cvxpy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.book import PRECISE, array, equal, prox, slope, tensor, value
from scipy.optimize import isotonic_regression
from strategies import tensors

from keras_penalties.penalties import L1, SortedL1, TotalVariation
from keras_penalties.penalties.taut_string import taut_string

TV = TotalVariation(1.0)
CLOSE = 1e-9 if PRECISE else 3e-6


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def solved(minimise):
    """The minimiser by cvxpy of a function of a variable, and of its shape."""
    cvxpy = pytest.importorskip("cvxpy")

    def run(shape):
        u = cvxpy.Variable(shape)
        exact = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
        problem = cvxpy.Problem(cvxpy.Minimize(minimise(cvxpy, u)))
        problem.solve(solver="CLARABEL", **exact)
        return u.value

    return run


# Total variation.


def test_value_along_axes():
    x = noise(3, 4, 2)
    along = [np.sum(np.abs(np.diff(x, axis=a))) for a in range(3)]
    equal(value(TV, x), along[0])
    equal(value(TotalVariation(1.0, axis=-1), x), along[2])
    equal(value(TotalVariation(1.0, axis=[0, 2]), x), along[0] + along[2])


@pytest.mark.parametrize("t", [0.01, 0.5, 3.0, 100.0])
def test_prox_against_cvxpy(t):
    y = np.cumsum(noise(40))
    tv = solved(lambda cp, u: t * cp.norm1(cp.diff(u)) + 0.5 * cp.sum_squares(u - y))
    np.testing.assert_allclose(prox(TV, y, t), tv(40), atol=2e-6)


def test_prox_with_one_step_for_each_entry_against_cvxpy():
    y, t = np.cumsum(noise(40)), np.exp(2.0 * noise(40, seed=1))
    tv = solved(
        lambda cp, u: (
            cp.norm1(cp.diff(u)) + 0.5 * cp.sum(cp.multiply(1 / t, cp.square(u - y)))
        )
    )
    np.testing.assert_allclose(prox(TV, y, t), tv(40), atol=2e-6)
    t[::3] = 0.0
    assert np.all(prox(TV, y, t)[::3] == array(tensor(y))[::3])


def test_prox_against_pyproximal():
    pyproximal = pytest.importorskip("pyproximal")
    y = np.cumsum(noise(30))
    theirs = pyproximal.TV(dims=(30,), sigma=1.0, niter=3000, rtol=0).prox(y, 0.7)
    np.testing.assert_allclose(prox(TV, y, 0.7), theirs, atol=1e-3)


@pytest.mark.parametrize("kind", ["noise", "walk", "steps", "spikes"])
def test_prox_by_its_certificate(kind):
    """z, the running sums of u - y, is within ±t, and at ±t where u rises or falls."""
    n, t = 2000, 1.5
    y = {
        "noise": noise(n),
        "walk": np.cumsum(noise(n)),
        "steps": np.repeat(noise(20), 100) + 0.1 * noise(n),
        "spikes": 10.0 * (noise(n) > 2.5),
    }[kind]
    y = array(tensor(y))
    u = prox(TV, y, t)
    z = np.cumsum(u - y)
    bound = 1e-9 if PRECISE else 2e-3  # of the sums that float32 leaves in 2000 numbers
    assert abs(z[-1]) <= bound
    assert np.max(np.abs(z[:-1])) <= t + bound
    rises = np.diff(u)
    kinks = np.abs(rises) > bound
    assert 2 < np.sum(kinks) < n / 2
    np.testing.assert_allclose(z[:-1][kinks], t * np.sign(rises[kinks]), atol=bound)


@pytest.mark.slow_on_tensorflow
def test_prox_takes_each_column_by_itself():
    y = noise(7, 2, 3)
    for axis in (0, 1, -1):
        p = TotalVariation(1.0, axis=axis)
        apart = np.apply_along_axis(lambda v: prox(TV, v, 0.6), axis, y)
        equal(prox(p, y, 0.6), apart)


@pytest.mark.slow_on_tensorflow
@given(tensors(), st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_prox_keeps_the_mean_and_moves_with_a_shift(y, t):
    u = prox(TV, y, t)
    np.testing.assert_allclose(u.mean(0), y.mean(0), atol=1e-5)
    np.testing.assert_allclose(prox(TV, y + 2.0, t), u + 2.0, atol=1e-5)
    np.testing.assert_allclose(prox(TV, -y, t), -u, atol=1e-5)
    if t == 30.0:  # more than any sum of these entries
        np.testing.assert_allclose(u, np.broadcast_to(y.mean(0), y.shape), atol=1e-5)


def test_fused_lasso_against_cvxpy():
    y = np.cumsum(noise(30))
    fused = solved(
        lambda cp, u: (
            0.8 * cp.norm1(cp.diff(u)) + 0.5 * cp.norm1(u) + cp.sum_squares(u - y) / 2
        )
    )
    found = prox(TotalVariation(1.6) + L1(1.0), y, 0.5)
    np.testing.assert_allclose(found, fused(30), atol=2e-6)


def test_several_axes_have_no_prox():
    p = TotalVariation(1.0, axis=[0, 1])
    assert not p.has_prox
    with pytest.raises(NotImplementedError, match="proximal"):
        p.prox(np.zeros((2, 2)), 0.1)


@pytest.mark.parametrize("axis", [0.5, "0", None, [], [0, 0], True])
def test_bad_axes(axis):
    with pytest.raises(ValueError, match="axis"):
        TotalVariation(1.0, axis=axis)


# The taut string.


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("n", [1, 2, 9, 300])
@pytest.mark.parametrize("decreasing", [True, False])
def test_isotonic_regression_against_scipy(n, decreasing):
    bounds = (0.0, np.inf) if decreasing else (-np.inf, 0.0)
    kinds = [noise(n), np.cumsum(noise(n)), np.sort(noise(n)), np.zeros(n)]
    kinds += [-np.sort(noise(n)), np.eye(1, n)[0] * -n, np.round(noise(n))]
    y, w = np.stack(kinds), np.exp(noise(len(kinds), n, seed=1))
    for weights in (np.ones_like(y), w):
        found = array(taut_string(tensor(y), *bounds, tensor(weights)))
        for row, target, weight in zip(found, y, weights, strict=True):
            best = isotonic_regression(
                target, weights=weight, increasing=not decreasing
            )
            np.testing.assert_allclose(row, best.x, atol=3e-6 * n**0.5)


# Sorted L1.


def slope_penalty(weights):
    return pytest.importorskip("skglm.penalties").SLOPE(np.asarray(weights, float))


@given(tensors(), st.integers(0, 3), st.sampled_from([0.0, 0.05, 0.5, 2.0]))
def test_sorted_l1_against_skglm(x, seed, t):
    weights = np.sort(np.abs(noise(x.size, seed=seed)))[::-1]
    weights[: seed + 1] = weights[0]  # ties
    theirs = slope_penalty(weights)
    ours = SortedL1(1.0, weights)
    equal(value(ours, x), theirs.value(x.ravel()), 1e-6)
    best = theirs.prox_vec(x.ravel().astype(float), t).reshape(x.shape)
    np.testing.assert_allclose(prox(ours, x, t), best, atol=CLOSE)


def test_sorted_l1_of_many_entries():
    x, t = noise(20_000), 0.3
    weights = np.linspace(3.0, 0.0, x.size)
    best = slope_penalty(weights).prox_vec(x, t)
    np.testing.assert_allclose(prox(SortedL1(1.0, weights), x, t), best, atol=5e-6)
    # One block that swallows others one by one is the slow case of pool-adjacent.
    largest = np.zeros(x.size)
    largest[0] = 1.0
    best = slope_penalty(largest).prox_vec(x, 1000.0)
    # The largest entry less 1000 has 5 digits left in float32.
    np.testing.assert_allclose(prox(SortedL1(1.0), x, 1000.0), best, atol=1e-4)


def test_equal_weights_are_l1_and_one_weight_the_largest_magnitude():
    x = noise(4, 3)
    equal(prox(SortedL1(1.0, [0.5] * 12), x, 0.6), prox(L1(1.0), x, 0.3))
    equal(value(SortedL1(1.0), x), np.max(np.abs(x)))
    equal(value(SortedL1(1.0, [1.0, 1.0]), x), np.sum(np.sort(np.abs(x.ravel()))[-2:]))


def test_oscar_is_its_formula():
    x = noise(6)
    pairs = itertools.combinations(np.abs(x), 2)
    equal(
        value(SortedL1.oscar(1.0, 6, 0.3), x),
        np.sum(np.abs(x)) + 0.3 * sum(map(max, pairs)),
    )


def test_sorted_l1_makes_clusters():
    u = prox(SortedL1.oscar(1.0, 5, 0.5), np.array([3.0, -2.95, 2.9, 0.5, 0.1]), 0.2)
    assert abs(u[0]) == abs(u[1]) == abs(u[2]) > abs(u[3]) > 0 == u[4]


def test_slope_at_ties_is_the_smallest():
    """The mean of the weights that the tied entries share, and 0 at 0."""
    p = SortedL1(1.0, [4.0, 2.0, 1.0, 1.0])
    equal(slope(p, np.array([1.0, -2.0, 2.0, 0.0])), [1.0, -3.0, 3.0, 0.0])
    equal(slope(p, np.full(4, -0.5)), np.full(4, -2.0))
    equal(slope(SortedL1(1.0), np.array([1.0, 1.0, 0.0])), [0.5, 0.5, 0.0])


@pytest.mark.parametrize("bad", [[], [1.0, 2.0], [1.0, -1.0], [[1.0]], "1", [np.inf]])
def test_bad_weights(bad):
    with pytest.raises(ValueError, match="weights"):
        SortedL1(1.0, bad)


def test_more_weights_than_entries_are_refused():
    for method in (SortedL1(1.0, [1.0, 0.5]), L1(1.0) + SortedL1(1.0, [1.0, 0.5])):
        with pytest.raises(ValueError, match="weights"):
            method.value(np.ones(1))


def test_steps_for_each_entry_are_refused():
    with pytest.raises(ValueError, match="one t"):
        SortedL1(1.0).prox(np.ones(3), np.ones(3))
