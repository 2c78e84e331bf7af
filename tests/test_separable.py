"""Penalties on single entries, against other packages, closed forms and brute force."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from laws.book import PRECISE, entries, equal, prox, slope, value
from least_squares import regression
from skglm.utils import prox_funcs
from sklearn.linear_model import ElasticNet, Lasso
from strategies import tensors

import keras_penalties as kp
from keras_penalties.penalties import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    CappedL1,
    Grouped,
    HuberL1,
    LogSum,
    Lp,
    NonNegative,
    Separable,
)

X = np.concatenate([np.linspace(-7.3, 7.3, 75), [1e-4, 0.0, -1e-4]])
TIGHT = 1e-9 if PRECISE else 3e-6
CURVED = HuberL1(), MCP(), SCAD(), CappedL1(), LogSum(), Lp(), Lp(p=1.5)


def skglm(name):
    """The function as plain Python: numba would take seconds to compile it."""
    return getattr(prox_funcs, name).py_func


def per_entry(function, *args):
    return np.array([function(x, *args) for x in X])


# Other packages' values. Their λ is our strength.


@pytest.mark.parametrize(("strength", "gamma"), [(0.7, 3.0), (2.0, 1.5)])
def test_mcp_has_skglms_value(strength, gamma):
    ours = MCP(strength, width=gamma * strength)
    theirs = [skglm("value_MCP")(np.array([x]), strength, gamma) for x in X]
    equal(strength * entries(ours, X), theirs, TIGHT)


@pytest.mark.parametrize(("strength", "ratio"), [(0.7, 3.7), (2.0, 2.5)])
def test_scad_has_skglms_value(strength, ratio):
    ours = SCAD(strength, knee=strength, ratio=ratio)
    theirs = [skglm("value_SCAD")(np.array([x]), strength, ratio) for x in X]
    equal(strength * entries(ours, X), theirs, TIGHT)


def test_huber_l1_is_scipys_huber_over_its_width():
    for width in (0.1, 1.0, 2.5):
        theirs = scipy.special.huber(width, X) / width
        equal(entries(HuberL1(1.0, width=width), X), theirs, TIGHT)


def test_wide_concave_penalties_become_l1():
    for wide in (MCP(1.0, width=1e9), SCAD(1.0, knee=1e9), CappedL1(1.0, cap=1e9)):
        equal(entries(wide, X), np.abs(X), 1e-6)
        equal(prox(wide, X, 0.8), prox(L1(1.0), X, 0.8), 1e-6)


# Other packages' proximal maps.


@pytest.mark.parametrize("step", [0.3, 1.0, 1.9])
def test_mcp_has_skglms_prox_in_the_convex_range(step):
    theirs = per_entry(skglm("prox_MCP"), step, 0.7, 2.0)
    equal(prox(MCP(0.7, width=1.4), X, 0.7 * step), theirs, TIGHT)


@pytest.mark.parametrize("step", [0.3, 1.0, 2.5])
def test_scad_has_skglms_prox_in_the_convex_range(step):
    theirs = per_entry(skglm("prox_SCAD"), step, 0.7, 3.7)
    equal(prox(SCAD(0.7, knee=0.7, ratio=3.7), X, 0.7 * step), theirs, TIGHT)


@pytest.mark.parametrize(("t", "epsilon"), [(0.2, 1.0), (1.3, 1.0), (2.0, 0.3)])
def test_log_sum_has_skglms_prox(t, epsilon):
    theirs = per_entry(skglm("prox_log_sum"), t, epsilon)
    equal(prox(LogSum(1.0, epsilon=epsilon), X, t), theirs, TIGHT)


@pytest.mark.parametrize(("p", "name"), [(1 / 2, "prox_05"), (2 / 3, "prox_2_3")])
def test_lp_has_skglms_prox(p, name):
    for t in (0.1, 1.0, 3.0):
        equal(prox(Lp(1.0, p=p), X, t), per_entry(skglm(name), t), TIGHT)


def test_l0_is_the_hard_threshold_of_pyproximal():
    """At √(2t). Theirs is at t itself: at 0.2 it keeps what costs 0.1, for t = 0.1."""
    pyproximal = pytest.importorskip("pyproximal")
    for t in (0.1, 1.0, 9.0):
        theirs = pyproximal.L0(np.sqrt(2 * t)).prox(X, 1.0)
        equal(prox(L0(1.0), X, t), theirs)
    assert L0(0.5).value(X[[0, 75, 76]]) == 2.0


def test_a_narrow_capped_l1_counts_as_l0_does():
    narrow, x = CappedL1(1.0, cap=1e-6), X[np.abs(X) > 1e-3]
    equal(entries(narrow, x) / 1e-6, entries(L0(1.0), x), 1e-6)
    equal(prox(narrow, x, 1e6), prox(L0(1.0), x, 1.0), 1e-5)


def test_ties_are_zero():
    """At √(2t), and where the cap's two minima are equal, here 0 and x."""
    assert prox(L0(1.0), [1.0, -1.0], 0.5).tolist() == [0.0, 0.0]
    assert prox(CappedL1(1.0, cap=1.0), [2.0, -2.0], 2.0).tolist() == [0.0, 0.0]


def test_lp_of_1_and_2_is_l1_and_l2():
    for lp, plain in ((Lp(1.0, p=1.0), L1(1.0)), (Lp(1.0, p=2.0), L2(1.0))):
        assert lp.elastic == plain.elastic
        equal(entries(lp, X), entries(plain, X))
        equal(prox(lp, X, 0.8), prox(plain, X, 0.8))


def test_groups_of_l0_are_kept_or_zero_as_wholes():
    rows = Grouped(L0(1.0), axis=0)
    equal(prox(rows, [[3.0, 4.0], [0.3, 0.4]], 1.0), [[3.0, 4.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"count of nonzeros.*Proximal"):
        rows(np.ones((2, 2)))


def test_mcp_where_skglm_errs():
    """Beyond the convex range skglm 0.5 gives 0, with more than twice the objective."""
    assert skglm("prox_MCP")(2.3, 2.5, 1.0, 2.0) == 0.0
    equal(prox(MCP(1.0, width=2.0), [2.3], 2.5), [2.3])


def test_scad_where_pyproximal_errs():
    """With t = 4 beyond ratio - 1 = 2.7, pyproximal gives 0.9 at 4.9."""
    equal(prox(SCAD(1.0), [4.9], 4.0), [4.9])


def test_elastic_net_is_scikit_learns():
    """With X = √n·I, scikit-learn's objective is the one that the prox minimises."""
    n, y = 8, np.linspace(-3.0, 3.0, 8)
    for ratio in (0.1, 0.5, 1.0):
        fit = ElasticNet(0.8, l1_ratio=ratio, fit_intercept=False, tol=1e-14)
        theirs = fit.fit(np.sqrt(n) * np.eye(n), np.sqrt(n) * y).coef_
        equal(prox(kp.penalties.ElasticNet(1.0, l1_ratio=ratio), y, 0.8), theirs, TIGHT)


# Whole regressions, by plain proximal gradient descent.


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 10))
    return features, features[:, :3] @ [2.0, -1.0, 0.5] + 0.3 * rng.normal(size=40)


def test_l1_reaches_scikit_learns_lasso(problem):
    features, y = problem
    fit = Lasso(8.0 / len(y), fit_intercept=False, tol=1e-14).fit(features, y)
    ours = regression(L1(8.0), features, y)
    np.testing.assert_array_equal(ours != 0, fit.coef_ != 0)
    equal(ours, fit.coef_, 1e-8 if PRECISE else 1e-5)


def test_a_strong_hinge_reaches_scipys_nnls(problem):
    features, y = problem
    theirs, _ = scipy.optimize.nnls(features, y)
    ours = regression(NonNegative(1e4), features, y)
    np.testing.assert_array_equal(ours != 0, theirs != 0)
    equal(ours, theirs, 1e-8 if PRECISE else 1e-5)


# Every parameter, by brute force.

sizes = st.floats(0.05, 5.0)
ANY = st.one_of(
    st.builds(HuberL1, width=sizes),
    st.builds(MCP, width=sizes),
    st.builds(SCAD, knee=sizes, ratio=st.floats(1.1, 6.0)),
    st.builds(CappedL1, cap=sizes),
    st.builds(LogSum, epsilon=sizes),
    st.builds(Lp, p=st.floats(0.05, 0.95) | st.floats(1.01, 2.0)),
    st.builds(L0),
    st.builds(kp.penalties.ElasticNet, l1_ratio=st.floats(0.0, 1.0)),
)


@given(penalty=ANY, x=tensors(shapes=((6,),)), t=st.floats(0.0, 12.0))
def test_prox_is_the_global_minimiser(penalty: Separable, x, t):
    u = prox(penalty, x, t)
    grid = np.concatenate([np.linspace(-4.0, 4.0, 2001), x.reshape(-1)])
    costs = t * entries(penalty, grid) + 0.5 * (grid - x[..., None]) ** 2
    ours = t * entries(penalty, u) + 0.5 * (u - x) ** 2
    room = (1e-12 if PRECISE else 3e-6) * (1.0 + np.max(np.abs(ours)))
    assert np.all(ours <= np.min(costs, axis=-1) + room)


@given(penalty=ANY, x=tensors(shapes=((6,),)))
def test_values_are_even_grow_with_size_and_forget_the_order(penalty: Separable, x):
    equal(value(penalty, -x), value(penalty, x))
    equal(value(penalty, np.sort(x, axis=None)), value(penalty, x))
    assert value(penalty, 1.5 * x) >= value(penalty, x)
    assert value(penalty, 0.0 * x) == 0.0


@given(penalty=ANY, x=tensors(shapes=((6,),)), t=st.floats(0.0, 12.0))
def test_prox_shrinks_and_keeps_sign_and_order(penalty: Separable, x, t):
    u, rounding = prox(penalty, x, t), 1e-6
    assert np.all(u * x >= 0)
    assert np.all(np.abs(u) <= np.abs(x) * (1 + rounding) + 1e-12)
    order = np.argsort(x, axis=None)
    assert np.all(np.diff(u.reshape(-1)[order]) >= -rounding * np.max(np.abs(x)))


# Exactness where it is delicate.


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.8, 0.98])
def test_newtons_method_for_lp_has_converged(p):
    for t in (1e-6, 0.1, 1.0, 50.0):
        least = (2 * t * (1 - p)) ** (1 / (2 - p))
        threshold = least * (2 - p) / (2 - 2 * p)
        x = threshold * np.array([0.999, 1.001, 1.1, 2.0, 30.0, 1e4])

        def root(size, t=t, least=least):
            def excess(u):
                return u + t * p * u ** (p - 1) - size

            return scipy.optimize.brentq(excess, least, size, xtol=1e-300, rtol=1e-14)

        exact = [0.0, *(root(size) for size in x[1:])]
        # x is the larger of the two numbers whose difference is the root.
        error = np.abs(prox(Lp(1.0, p=p), x, t) - exact)
        assert np.all(error <= (1e-14 if PRECISE else 5e-7) * x)


@pytest.mark.parametrize("p", [1.001, 1.1, 1.5, 1.9, 1.999])
def test_newtons_method_for_lp_between_1_and_2_has_converged(p):
    x = np.array([1e-30, 1e-4, 0.3, 0.99, 1.0, 1.01, 2.0, 30.0, 1e4])
    for t in (1e-6, 0.1, 0.9, 1.0, 1.1, 50.0):

        def root(size, t=t):
            def excess(u):
                return u + t * p * u ** (p - 1) - size

            exactly = {"xtol": 1e-300, "rtol": 1e-14, "maxiter": 2000}
            return scipy.optimize.brentq(excess, 0.0, size, **exactly)

        exact = np.array([root(size) for size in x])
        found = prox(Lp(1.0, p=p), x, t)
        assert np.all(np.abs(found - exact) <= (1e-14 if PRECISE else 5e-7) * x)
        if p == 1.5:  # √u is the root of a square
            closed = (2 * x / (1.5 * t + np.sqrt(2.25 * t**2 + 4 * x))) ** 2
            equal(found, closed, TIGHT)


@pytest.mark.parametrize(
    ("penalty", "edge"), [(MCP(1.0, width=1.5), 1.5), (SCAD(1.0, ratio=3.0), 2.0)]
)
def test_prox_does_not_break_at_the_end_of_the_convex_range(penalty, edge):
    x = X[np.min(np.abs(np.abs(X)[:, None] - [edge, 3.0]), axis=1) > 0.02]
    for nudge in (1e-6, 0.0, -1e-6):
        equal(prox(penalty, x, edge * (1 + nudge)), prox(penalty, x, edge), 1e-3)


def test_prox_keeps_its_digits_for_small_entries():
    x = 1e-5 * X
    for penalty in (*CURVED, NonNegative(), L0(), L2()):
        np.testing.assert_allclose(prox(penalty, x, 0.0), x, rtol=1e-6)
    equal(
        prox(LogSum(1.0), x, 2e-5), np.sign(x) * np.maximum(np.abs(x) - 2e-5, 0), 1e-4
    )


def test_one_step_for_each_entry_broadcasts():
    x, t = X[:12].reshape(4, 3), np.array([0.1, 1.0, 9.0])
    for penalty in (*CURVED, NonNegative(), L0()):
        together = prox(penalty, x, t)
        for i in range(3):
            equal(together[:, i], prox(penalty, x, t[i])[:, i])


def test_slopes_at_kinks_are_the_smallest():
    points = [-2.0, -1.0, 0.0, 1.0, 2.0]
    equal(slope(L1(), points), [-1, -1, 0, 1, 1])
    equal(slope(HuberL1(width=1.0), points), [-1, -1, 0, 1, 1])
    equal(slope(MCP(width=2.0), points), [0, -0.5, 0, 0.5, 0])
    equal(slope(SCAD(knee=1.0, ratio=3.0), points), [-0.5, -1, 0, 1, 0.5])
    equal(slope(LogSum(epsilon=1.0), points), [-1 / 3, -1 / 2, 0, 1 / 2, 1 / 3])
    equal(slope(Lp(p=0.5), [-4.0, 0.0, 4.0]), [-0.25, 0, 0.25])
    equal(slope(Lp(p=1.5), [-4.0, 0.0, 4.0]), [-3.0, 0, 3.0])
    equal(slope(CappedL1(cap=1.0), [-1.0, -0.5, 0, 0.5, 1.0]), [0, -1, 0, 1, 0])
    equal(slope(NonNegative(), points), [-1, -1, 0, 0, 0])


@pytest.mark.parametrize(
    ("cls", "bad"),
    [
        (HuberL1, {"width": 0.0}),
        (MCP, {"width": -1.0}),
        (MCP, {"width": float("inf")}),
        (SCAD, {"knee": 0.0}),
        (SCAD, {"ratio": 1.0}),
        (LogSum, {"epsilon": 0.0}),
        (CappedL1, {"cap": 0.0}),
        (Lp, {"p": 2.1}),
        (Lp, {"p": 0.0}),
        (kp.penalties.ElasticNet, {"l1_ratio": 1.1}),
    ],
)
def test_bad_arguments_are_named(cls, bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"argument `{name}`.*Received"):
        cls(**bad)
