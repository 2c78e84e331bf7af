"""Group penalties and sums: other packages, exact solvers and brute force."""

import cvxpy as cp
import keras
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from laws.book import PRECISE, entries, equal, prox, slope, tensor, value
from least_squares import regression
from skglm.penalties import WeightedL1GroupL2
from skglm.utils import prox_funcs
from sklearn.linear_model import Lasso, MultiTaskElasticNet, MultiTaskLasso
from strategies import tensors

import keras_penalties as kp
from keras_penalties.penalties import (
    L1,
    L2,
    MCP,
    SCAD,
    Box,
    ElasticNet,
    Grouped,
    HuberL1,
    Lp,
    NonNegative,
    TotalVariation,
)

RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 3))
KERNEL = RNG.normal(size=(2, 2, 3, 4))
TIGHT = 1e-9 if PRECISE else 3e-6
SOLVED = 1e-8 if PRECISE else 2e-5  # a whole regression


def row_norms(x):
    return np.linalg.norm(x.reshape(len(x), -1), axis=1)


# What the groups are.


def test_the_axis_indexes_the_groups():
    equal(value(Grouped(L1(), axis=0), X), np.sum(row_norms(X)))
    equal(value(Grouped(L1(), axis=-1), X), np.sum(row_norms(X.T)))
    equal(value(Grouped(L1()), X), np.linalg.norm(X))
    equal(value(Grouped(L1(), axis=[0, 1]), X), np.sum(np.abs(X)))
    filters = np.moveaxis(KERNEL, -1, 0)
    equal(value(Grouped(L1(), axis=-1), KERNEL), np.sum(row_norms(filters)))
    channels = np.moveaxis(KERNEL, 2, 0)
    equal(value(Grouped(L1(), axis=2), KERNEL), np.sum(row_norms(channels)))
    both = KERNEL.reshape(4, 12).T
    equal(value(Grouped(L1(), axis=[2, 3]), KERNEL), np.sum(row_norms(both)))


@pytest.mark.parametrize("inner", [L1(), MCP(), L2(), Lp(), HuberL1()])
@pytest.mark.parametrize("weights", [None, "sqrt_size", [1.0, 0.5, 0.0, 2.0]])
def test_axis_block_and_lists_agree(inner, weights):
    same = [
        Grouped(inner, axis=0, weights=weights),
        Grouped(inner, block=[1, 3], weights=weights),
        Grouped(inner, groups=np.arange(12).reshape(4, 3).tolist(), weights=weights),
    ]
    for other in same[1:]:
        equal(value(other, X), value(same[0], X))
        equal(slope(other, X), slope(same[0], X))
        for t in (0.0, 0.3, 2.0):
            equal(prox(other, X, t), prox(same[0], X, t))


def test_a_block_is_a_group():
    x = RNG.normal(size=(4, 6))
    tiles = [x[i : i + 2, j : j + 3] for i in (0, 2) for j in (0, 3)]
    blocks = Grouped(L1(), block=[2, 3], weights=[1.0, 2.0, 3.0, 4.0])
    norms = [np.linalg.norm(tile) for tile in tiles]
    equal(value(blocks, x), np.dot([1, 2, 3, 4], norms))
    shrunk = prox(blocks, x, 0.2)
    for k, (i, j) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)]):
        expected = tiles[k] * max(1 - 0.2 * (k + 1) / norms[k], 0)
        equal(shrunk[i : i + 2, j : j + 3], expected)


def test_entries_in_no_list_are_left_alone():
    some = Grouped(L1(), groups=[[4, 0], [7]])
    x = X.reshape(-1)
    equal(value(some, X), np.hypot(x[4], x[0]) + abs(x[7]))
    moved = prox(some, X, 100.0).reshape(-1)
    np.testing.assert_array_equal(np.flatnonzero(moved == 0), [0, 4, 7])
    rest = np.setdiff1d(np.arange(12), [0, 4, 7])
    equal(moved[rest], x[rest], 1e-7)
    assert np.all(slope(some, X).reshape(-1)[rest] == 0)


def test_groups_of_one_are_the_inner_penalty():
    for inner in (L1(), MCP(), SCAD(), Lp(), ElasticNet()):
        single = Grouped(inner, axis=[0, 1])
        t = np.exp(RNG.normal(size=X.shape))
        equal(value(single, X), value(inner, X))
        equal(prox(single, X, 0.4), prox(inner, X, 0.4))
        equal(prox(single, X, t), prox(inner, X, t))


def test_weighted_l1_is_one_line():
    w = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    weighted, x = Grouped(L1(), axis=0, weights=w), RNG.normal(size=6)
    equal(value(weighted, x), np.dot(w, np.abs(x)))
    t = np.multiply(0.2, w)
    equal(prox(weighted, x, 0.2), np.sign(x) * np.maximum(np.abs(x) - t, 0))


# Other packages and exact solvers.


def test_block_soft_threshold_is_skglms():
    for t in (0.1, 1.0, 3.0):
        theirs = [prox_funcs.BST.py_func(row, t) for row in X]
        equal(prox(Grouped(L1(), axis=0), X, t), theirs, TIGHT)


def test_sparse_group_lasso_is_skglms():
    groups, x = [[0, 1, 2, 3], [4, 5]], RNG.normal(size=6)
    ours = L1(0.3) + Grouped(L1(0.4), groups=groups, weights=[1.0, 2.0])
    theirs = WeightedL1GroupL2(
        0.5, np.array([0.8, 1.6]), np.full(6, 0.6), np.array([0, 4, 6]), np.arange(6)
    )
    equal(float(ours(tensor(x))), theirs.value(x), TIGHT)
    for weight, members in zip([1.0, 2.0], groups, strict=True):
        soft = prox_funcs.ST_vec.py_func(x[members], 0.7 * 0.3)
        expected = prox_funcs.BST.py_func(soft, 0.7 * 0.4 * weight)
        equal(prox(ours, x, 0.7)[members], expected, TIGHT)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 8))
    weights = rng.normal(size=(8, 3)) * (np.arange(8) < 3)[:, None]
    return features, features @ weights + 0.3 * rng.normal(size=(50, 3))


def test_group_lasso_reaches_multi_task_lasso(problem):
    features, y = problem
    fit = MultiTaskLasso(12.0 / 50, fit_intercept=False, tol=1e-14, max_iter=100_000)
    theirs = fit.fit(features, y).coef_.T
    ours = regression(Grouped(L1(12.0), axis=0), features, y)
    np.testing.assert_array_equal(np.any(ours, axis=1), np.any(theirs, axis=1))
    assert 0 < np.sum(np.any(ours, axis=1)) < 8
    equal(ours, theirs, SOLVED)


def test_grouped_elastic_net_reaches_multi_task_elastic_net(problem):
    features, y = problem
    fit = MultiTaskElasticNet(
        20.0 / 50, l1_ratio=0.6, fit_intercept=False, tol=1e-14, max_iter=100_000
    )
    theirs = fit.fit(features, y).coef_.T
    ours = regression(Grouped(ElasticNet(20.0, l1_ratio=0.6), axis=0), features, y)
    equal(ours, theirs, SOLVED)


def test_l1_in_a_box_reaches_the_positive_lasso(problem):
    features, y = problem
    fit = Lasso(5.0 / 50, positive=True, fit_intercept=False, tol=1e-14)
    theirs = fit.fit(features, y[:, 0]).coef_
    equal(regression(L1(5.0) + Box(), features, y[:, 0]), theirs, SOLVED)


def total(variable, weights, norm):
    rows = (cp.norm(variable[i], norm) for i in range(variable.shape[0]))
    return sum(w * row for w, row in zip(weights, rows, strict=True))


W = [1.0, 0.5, 2.0, 0.25]
CONVEX = {
    "sqrt_size": (
        Grouped(L1(), axis=0, weights="sqrt_size"),
        lambda u: total(u, [3**0.5] * 4, 2),
    ),
    "weights": (Grouped(L1(), axis=0, weights=W), lambda u: total(u, W, 2)),
    "max": (
        Grouped(L1(), axis=0, norm="max", weights=W),
        lambda u: total(u, W, "inf"),
    ),
    "sparse_group": (
        L1(0.3) + Grouped(L1(0.5), axis=0),
        lambda u: 0.3 * cp.sum(cp.abs(u)) + 0.5 * total(u, [1.0] * 4, 2),
    ),
    "sparse_max": (
        Grouped(L1(0.5), axis=0, norm="max") + ElasticNet(0.3),
        lambda u: (
            0.5 * total(u, [1.0] * 4, "inf")
            + 0.15 * cp.sum(cp.abs(u))
            + 0.075 * cp.sum_squares(u)
        ),
    ),
    "hinge": (
        NonNegative(0.7) + L1(0.2) + L2(0.1),
        lambda u: (
            0.7 * cp.sum(cp.pos(-u)) + 0.2 * cp.sum(cp.abs(u)) + 0.1 * cp.sum_squares(u)
        ),
    ),
    "elastic_rows": (
        Grouped(ElasticNet(1.0, l1_ratio=0.7), axis=0),
        lambda u: 0.7 * total(u, [1.0] * 4, 2) + 0.15 * cp.sum_squares(u),
    ),
}
FUSED = (
    TotalVariation(0.4, axis=0) + L1(0.2) + L2(0.1),
    lambda u: (
        0.4 * cp.sum(cp.abs(u[1:] - u[:-1]))
        + 0.2 * cp.sum(cp.abs(u))
        + 0.1 * cp.sum_squares(u)
    ),
)


def solved(formula, x, t):
    """By an interior point method, good to some seven digits."""
    u = cp.Variable(x.shape)
    cost = formula(u) + 0.5 * cp.sum(cp.multiply(1 / t, cp.square(u - x)))
    problem = cp.Problem(cp.Minimize(cost))
    tight = {f"tol_{word}": 1e-11 for word in ("gap_abs", "gap_rel", "feas")}
    problem.solve(solver="CLARABEL", **tight)
    return u.value


@pytest.mark.parametrize("case", CONVEX)
@pytest.mark.parametrize("t", ["one", "per entry"])
def test_prox_is_an_interior_point_methods(case, t):
    penalty, formula = CONVEX[case]
    assert penalty.per_entry
    x = 2 * X
    steps = np.full(x.shape, 0.6)
    if t == "per entry":
        steps = 0.6 * np.exp(np.random.default_rng(1).normal(size=x.shape))
    ours = prox(penalty, x, 0.6 if t == "one" else steps)
    np.testing.assert_allclose(ours, solved(formula, x, steps), atol=2e-5)
    assert np.any(ours != 0)


def test_the_fused_lasso_is_an_interior_point_methods():
    penalty, formula = FUSED
    steps = np.full(X.shape, 0.6)
    ours = prox(penalty, 2 * X, 0.6)
    np.testing.assert_allclose(ours, solved(formula, 2 * X, steps), atol=2e-5)
    assert not penalty.per_entry
    with pytest.raises(ValueError, match="one t for the whole"):
        prox(penalty, 2 * X, steps)


# Exactness where it is delicate.


def test_newtons_method_for_the_length_has_converged():
    """Steps and entries over twelve decades, against a bracketing solver."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 5)) * 10 ** rng.uniform(-4, 0, (200, 5))
    t = 10 ** rng.uniform(-8, 1, (200, 5)) * np.linalg.norm(x, axis=1, keepdims=True)
    ours = np.linalg.norm(prox(Grouped(L1(), axis=0), x, t), axis=1)

    def excess(r, row, step):
        return np.sum((row / (r + step)) ** 2) - 1

    for length, row, step in zip(ours, x, t, strict=True):
        if np.sum((row / step) ** 2) <= 1:
            assert length == 0
            continue
        top = np.linalg.norm(row)
        exact = scipy.optimize.brentq(
            excess, 0, top, args=(row, step), xtol=1e-300, rtol=1e-14
        )
        # In float32 the root is a difference of numbers of the size of x.
        assert abs(length - exact) <= (1e-12 * exact if PRECISE else 1e-6 * top)


@pytest.mark.parametrize("inner", [MCP(width=0.5), SCAD(knee=0.3), Lp(p=0.5)])
@pytest.mark.parametrize("t", [0.2, 1.5, 6.0])
def test_a_concave_prox_finds_the_global_minimum_along_the_ray(inner, t):
    penalty = Grouped(inner, axis=0, weights="sqrt_size")
    u = prox(penalty, 2 * X, t)
    for row, moved in zip(2 * X, u, strict=True):
        ray = np.linspace(0.0, 1.2, 4001)[:, None] * row
        lengths = np.linalg.norm(ray, axis=1)
        phi = entries(inner, lengths[::20])
        costs = t * 3**0.5 * phi + 0.5 * np.sum((ray - row)[::20] ** 2, axis=1)
        length = np.linalg.norm(moved)
        ours = t * 3**0.5 * value(inner, [length]) + 0.5 * np.sum((moved - row) ** 2)
        assert ours <= np.min(costs) + 1e-6


def test_a_t_per_entry_that_is_not_known_raises():
    t = np.full(X.shape, 0.3)
    for inner in (MCP(), HuberL1(), Lp()):
        penalty = Grouped(inner, axis=0)
        assert not penalty.per_entry
        with pytest.raises(ValueError, match="one t for the whole"):
            prox(penalty, X, t)
    assert not Grouped(MCP(), axis=0, norm="max").has_prox
    assert not Grouped(L2(), axis=0, norm="max").has_prox


def test_some_entries_may_have_no_step():
    t = np.array([[0.0, 1.0, 5.0]] * 4)
    for norm in ("l2", "max"):
        u = prox(Grouped(L1(), axis=0, norm=norm), X, t)
        equal(u[:, 0], X[:, 0])
        assert np.all(np.abs(u[:, 1:]) <= np.abs(X[:, 1:]) + 1e-7)
        assert np.any(np.abs(u[:, 1:]) < np.abs(X[:, 1:]) - 0.1)


def test_ties_share_the_slope_of_the_largest():
    x = np.array([[2.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
    expected = [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]
    equal(slope(Grouped(L1(), axis=0, norm="max"), x), expected)


@given(x=tensors(shapes=((4, 3),)), angle=st.floats(0.0, 6.3))
def test_rotating_a_group_rotates_its_prox(x, angle):
    turn = np.eye(3)
    c, s = np.cos(angle), np.sin(angle)
    turn[:2, :2] = [[c, -s], [s, c]]
    for inner in (L1(), MCP()):
        penalty = Grouped(inner, axis=0)
        equal(value(penalty, x @ turn), value(penalty, x), TIGHT)
        turned, expected = prox(penalty, x @ turn, 0.7), prox(penalty, x, 0.7) @ turn
        atol = 1e-9 if PRECISE else 1e-5 * (1 + np.max(np.abs(x)))
        if inner == MCP():  # steep near its threshold: compare away from it
            near = np.abs(row_norms(x) - 0.7) < 0.05
            turned, expected = turned[~near], expected[~near]
        np.testing.assert_allclose(turned, expected, atol=atol)


@given(x=tensors(shapes=((4, 3),)), order=st.permutations(range(4)))
def test_the_order_of_the_groups_does_not_matter(x, order):
    penalty = Grouped(L1(), axis=0)
    equal(value(penalty, x[order]), value(penalty, x))
    equal(prox(penalty, x[order], 0.4), prox(penalty, x, 0.4)[order])


# Sums.


def test_which_sums_have_a_prox():
    known = [
        L1() + L2() + ElasticNet(),
        L2() + MCP(),
        L2() + kp.penalties.Spectral(L1()),
        Grouped(MCP(), axis=0) + L1(),
        Box(-1.0, 1.0) + L1() + L2(),
    ]
    unknown = [
        L1() + kp.penalties.SortedL1(),
        L1() + kp.penalties.Spectral(L1()),
        Grouped(L1(), axis=0) + Grouped(L1(), axis=1),
        L1() + kp.penalties.KLSparsity(),
    ]
    assert all(penalty.has_prox for penalty in known)
    assert not any(penalty.has_prox for penalty in unknown)
    with pytest.raises(NotImplementedError, match="Sum"):
        unknown[0].prox(tensor(X), 0.1)


def test_a_concave_penalty_beside_l2_is_minimised_by_brute_force():
    penalty, x = MCP(0.8, width=0.5) + L2(0.3), np.linspace(-4, 4, 41)
    grid = np.linspace(-5, 5, 10_001)

    def cost(u, x, t):
        mcp = np.minimum(np.abs(u), 0.5)
        return t * (0.8 * (mcp - mcp**2) + 0.3 * u**2) + 0.5 * (u - x) ** 2

    for t in (0.1, 0.7, 3.0):
        best = np.min(cost(grid, x[:, None], t), axis=1)
        assert np.all(cost(prox(penalty, x, t), x, t) <= best + 1e-6)


def test_a_schedule_in_a_sum_has_no_prox_of_its_own():
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    with pytest.raises(ValueError, match="strength"):
        (L1(ramp) + L2()).prox(tensor(X), 0.1)


# Arguments, and what does not fit.


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("penalty", {"penalty": NonNegative()}),
        ("penalty", {"penalty": Grouped(L1())}),
        ("axis", {"axis": 0, "block": [2, 2]}),
        ("axis", {"axis": [0, 0]}),
        ("block", {"block": [0, 1]}),
        ("groups", {"groups": [[0, 1], [1, 2]]}),
        ("groups", {"groups": [[0], []]}),
        ("groups", {"groups": [[-1]]}),
        ("weights", {"weights": "size"}),
        ("weights", {"weights": [1.0, -1.0]}),
        ("weights", {"weights": [0.0]}),
        ("norm", {"norm": "l1"}),
    ],
)
def test_bad_arguments_are_named(name, arguments):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        Grouped(**{"penalty": L1(), **arguments})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("block", {"block": [3, 1]}),
        ("block", {"block": [2, 1, 1]}),
        ("groups", {"groups": [[12]]}),
        ("weights", {"axis": 0, "weights": [1.0, 2.0]}),
        ("weights", {"groups": [[0], [1]], "weights": [1.0]}),
    ],
)
def test_a_tensor_that_does_not_fit_raises(name, arguments):
    with pytest.raises(ValueError, match=f"{name}|rank"):
        Grouped(L1(), **arguments)(X)


def test_an_axis_that_is_not_there_raises():
    with pytest.raises(ValueError, match="rank"):
        Grouped(L1(), axis=2)(X)


# In Keras.


@pytest.mark.parametrize("axis", [0, -1])
def test_groups_of_activations_with_any_batch(axis):
    """The last batch is smaller, so the graph knows no batch size."""
    x = RNG.uniform(size=(10, 3)).astype("float32")
    layer = kp.layers.ActivityPenalty(Grouped(L1(0.5), axis=axis))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(loss="mean_squared_error")
    loss, _ = model.evaluate(x, x, batch_size=10, verbose=0)
    groups = x if axis == 0 else x.T
    assert loss == pytest.approx(0.5 * np.sum(row_norms(groups)) / 10, rel=1e-5)
    assert np.all(np.isfinite(model.evaluate(x, x, batch_size=4, verbose=0)))
