"""Sums of penalties: values, and the proximal maps that the parts have together."""

import itertools

import keras
import numpy as np
import pytest
from laws.book import PRECISE, array, prox, tensor, value

import keras_penalties as kp

P = kp.penalties
RNG = np.random.default_rng(8)
X = RNG.normal(size=(4, 3))
A, B, W = RNG.normal(size=(3, 4, 3))
CLOSE = 1e-6 if PRECISE else 2e-5


def rows(s, **kwargs):
    return P.Grouped(P.L1(s), axis=0, **kwargs)


def grouped(cp, u):
    return cp.sum(cp.norm(u, 2, axis=1))


def variation(cp, u):
    return cp.sum(cp.abs(u[1:] - u[:-1]))


# Each sum, and its value, less constants, for a solver of others.
KNOWN = {
    "anchors": (
        P.ToReference(0.5, A) + P.ToReference(2.0, B, np.abs(W)),
        lambda cp, u: (
            0.25 * cp.sum_squares(u - A)
            + cp.sum_squares(cp.multiply(np.sqrt(np.abs(W)), u - B))
        ),
    ),
    "anchor and L1": (
        P.ToReference(0.5, A, np.abs(W)) + P.L1(0.3),
        lambda cp, u: (
            0.25 * cp.sum_squares(cp.multiply(np.sqrt(np.abs(W)), u - A))
            + 0.3 * cp.sum(cp.abs(u))
        ),
    ),
    "anchor and groups": (
        P.ToReference(0.5, A) + rows(0.3),
        lambda cp, u: 0.25 * cp.sum_squares(u - A) + 0.3 * grouped(cp, u),
    ),
    "alike": (rows(0.1) + rows(0.4), lambda cp, u: 0.5 * grouped(cp, u)),
    "groups and hinge": (
        rows(0.3) + P.NonNegative(0.4),
        lambda cp, u: 0.3 * grouped(cp, u) + 0.4 * cp.sum(cp.pos(-u)),
    ),
    "groups, L1 and hinge": (
        rows(0.3) + P.NonNegative(0.4) + P.L1(0.2),
        lambda cp, u: (
            0.3 * grouped(cp, u) + 0.4 * cp.sum(cp.pos(-u)) + 0.2 * cp.sum(cp.abs(u))
        ),
    ),
    "largest magnitudes and hinge": (
        P.NonNegative(0.4) + rows(0.3, norm="max") + P.L1(0.1),
        lambda cp, u: (
            0.3 * cp.sum(cp.max(cp.abs(u), axis=1))
            + 0.4 * cp.sum(cp.pos(-u))
            + 0.1 * cp.sum(cp.abs(u))
        ),
    ),
    "groups and sign": (
        rows(0.3) + P.Box(low=0.0),
        lambda cp, u: (0.3 * grouped(cp, u), [u >= 0]),
    ),
    "ball and sign": (
        P.L1Ball(1.0) + P.Box(low=0.0) + P.L1(0.1),
        lambda cp, u: (0.1 * cp.sum(cp.abs(u)), [u >= 0, cp.sum(cp.abs(u)) <= 1.0]),
    ),
    "L1, hinge and box": (
        P.Box(-0.5, 0.7) + P.L1(0.3) + P.NonNegative(0.2),
        lambda cp, u: (
            0.3 * cp.sum(cp.abs(u)) + 0.2 * cp.sum(cp.pos(-u)),
            [u >= -0.5, u <= 0.7],
        ),
    ),
    "Huber and L1": (
        P.HuberL1(0.4, width=0.5) + P.L1(0.2),
        lambda cp, u: 0.4 * cp.sum(cp.huber(u, 0.5)) + 0.2 * cp.sum(cp.abs(u)),
    ),
    "variation, L1 and box": (
        P.Box(0.0, 0.6) + P.TotalVariation(0.3) + P.L1(0.1) + P.L2(0.2),
        lambda cp, u: (
            0.3 * variation(cp, u) + 0.1 * cp.sum(cp.abs(u)) + 0.2 * cp.sum_squares(u),
            [u >= 0, u <= 0.6],
        ),
    ),
    "variation and Huber": (
        P.TotalVariation(0.3) + P.HuberL1(0.4, width=0.5),
        lambda cp, u: 0.3 * variation(cp, u) + 0.4 * cp.sum(cp.huber(u, 0.5)),
    ),
    "monotone and L1": (
        P.Monotone() + P.L1(0.3) + P.ToReference(0.2, 0.5),
        lambda cp, u: (
            0.3 * cp.sum(cp.abs(u)) + 0.1 * cp.sum_squares(u - 0.5),
            [u[1:] >= u[:-1]],
        ),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_joint_map_is_cvxpys(name):
    cp = pytest.importorskip("cvxpy")
    penalty, objective = KNOWN[name]
    assert penalty.has_prox
    one_t = [1.0, 3.0]
    each = np.exp(RNG.normal(size=X.shape))
    for t in [*one_t, *([each] if penalty.per_entry else [])]:
        u = cp.Variable(X.shape)
        cost = objective(cp, u)
        cost, limits = cost if isinstance(cost, tuple) else (cost, [])
        near = cp.multiply(np.broadcast_to(0.5 / t, X.shape), cp.square(u - X))
        problem = cp.Problem(cp.Minimize(cost + cp.sum(near)), limits)
        problem.solve("CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        np.testing.assert_allclose(prox(penalty, X, t), u.value, atol=CLOSE)


@pytest.mark.parametrize("name", KNOWN)
def test_the_order_of_the_parts_does_not_matter(name):
    penalty, _ = KNOWN[name]
    for parts in itertools.permutations(penalty.parts()):
        turned = P.Sum(parts)
        np.testing.assert_allclose(prox(turned, X, 0.7), prox(penalty, X, 0.7), 1e-5)


def test_the_parts_have_each_a_t_of_their_own():
    penalty = rows(1.0) + P.NonNegative() + P.ToReference(1.0, A)
    ts = [0.3, 0.2, 0.5]
    found = array(penalty.prox_parts(tensor(X), ts))
    weighed = rows(0.3) + P.NonNegative(0.2) + P.ToReference(0.5, A)
    np.testing.assert_allclose(found, prox(weighed, X, 1.0), rtol=1e-5)


@pytest.mark.parametrize("inner", ["mcp", "scad", "capped_l1", "log_sum", "lp", "l0"])
def test_a_concave_sum_over_entries_beside_an_l1_by_brute_force(inner):
    penalty = kp.get(f"{inner}(0.8)") + P.L1(0.3) + P.NonNegative(0.5)
    x, grid = np.linspace(-4, 4, 41), np.linspace(-5, 5, 10_001)
    part = kp.get(inner)

    def cost(u, t):
        own = 0.8 * array(part.entrywise(tensor(u)))
        own = own + 0.3 * np.abs(u) + 0.5 * np.maximum(-u, 0.0)
        return t * own + 0.5 * (u - x.reshape(-1, *[1] * (u.ndim - 1))) ** 2

    for t in (0.1, 0.7, 3.0):
        best = np.min(cost(np.broadcast_to(grid, (41, grid.size)), t), axis=1)
        assert np.all(cost(prox(penalty, x, t), t) <= best + 1e-6)


UNKNOWN = [
    P.L1() + P.Spectral(P.L1()),
    P.L1() + P.SortedL1(),
    rows(1.0) + P.Grouped(P.L1(), axis=1),
    rows(1.0) + P.Grouped(P.MCP(), axis=0),
    rows(1.0) + P.Box(-1.0, 1.0),
    P.TotalVariation(axis=0) + P.TotalVariation(axis=1),
    P.TotalVariation() + P.MCP(),
    P.MCP() + P.Box(-1.0, 1.0),
    P.MCP() + P.HuberL1(),
    P.ToReference(1.0, A, np.abs(W)) + P.Spectral(P.L1()),
    P.ToReference(1.0, A, np.abs(W)) + P.TotalVariation() + P.L1(),
    P.L1() + P.KLSparsity(),
]


@pytest.mark.parametrize("penalty", UNKNOWN, ids=lambda p: p.penalties)
def test_a_sum_without_a_known_map_says_who_applies_it(penalty):
    assert not penalty.has_prox
    with pytest.raises(NotImplementedError, match="Penalized"):
        penalty.prox(tensor(X), 0.1)


def test_alike_parts_are_one_also_where_no_map_takes_both():
    both = P.Spectral(P.L1(0.2)) + P.Spectral(P.L1(0.3)) + P.L2(0.1)
    one = P.Spectral(P.L1(0.5)) + P.L2(0.1)
    np.testing.assert_allclose(prox(both, X, 0.7), prox(one, X, 0.7), rtol=1e-5)


def test_a_reference_that_does_not_fit_is_named_in_a_sum_too():
    with pytest.raises(ValueError, match="ToReference"):
        (P.ToReference(1.0, [1.0, 2.0]) + P.L1()).prox(tensor(X), 0.1)


def test_a_sum_with_a_constraint_is_infinite_outside():
    both = P.Box(low=0.0) + P.L1(0.5)
    assert both.indicator
    assert value(both, np.array([1.0, 2.0])) == 1.5
    assert value(both, np.array([1.0, -2.0])) == np.inf
    with pytest.raises(ValueError, match="Proximal"):
        both(np.array([1.0, 2.0]))


def test_penalties_of_a_kind_are_summed_by_the_gradient():
    layer = kp.layers.Penalized(
        keras.layers.Dense(3), outputs=rows(0.1) + P.Grouped(P.L1(0.2), axis=1)
    )
    layer(tensor(X, "float32"))
    assert np.isfinite(float(array(sum(layer.losses))))
