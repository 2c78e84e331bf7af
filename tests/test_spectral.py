"""Penalties on singular values, against numpy, cvxpy, pyproximal and skglm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.book import PRECISE, array, equal, prox, slope, tensor, value
from scipy.stats import ortho_group

from keras_penalties.penalties import (
    L1,
    L2,
    MCP,
    Box,
    Lp,
    SortedL1,
    Spectral,
    SpectralNorm,
    TotalVariation,
)

NUCLEAR = Spectral(L1(1.0))
SHAPES = ((4, 3), (3, 4), (3, 3))
CLOSE = 1e-9 if PRECISE else 2e-5


def matrix(seed, shape=(4, 3), scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def with_singular_values(s, shape=(4, 3), seed=0):
    u = ortho_group.rvs(shape[0], random_state=seed)[:, : len(s)]
    v = ortho_group.rvs(shape[1], random_state=seed + 1)[:, : len(s)]
    return u * np.asarray(s) @ v.T, u @ v.T


@pytest.mark.parametrize("shape", SHAPES)
def test_values_against_numpy(shape):
    x = matrix(1, shape)
    s = np.linalg.svd(x, compute_uv=False)
    equal(value(NUCLEAR, x), np.linalg.norm(x, "nuc"), CLOSE)
    equal(value(Spectral(L2(1.0)), x), np.linalg.norm(x) ** 2, CLOSE)
    equal(value(Spectral(Lp(1.0, p=0.5)), x), np.sum(s**0.5), CLOSE)
    for k in (1, 2, 3):  # Ky Fan norms
        equal(value(Spectral(SortedL1(1.0, [1.0] * k)), x), np.sum(s[:k]), CLOSE)


@pytest.mark.slow_on_tensorflow
def test_rank_penalty_against_skglm():
    penalties = pytest.importorskip("skglm.penalties")
    s = np.linalg.svd(matrix(2), compute_uv=False)
    # In skglm α·|x| - x²/(2γ) up to γα: ours with width γα and strength α.
    theirs = penalties.MCPenalty(alpha=0.7, gamma=3.0).value(s)
    equal(float(array(Spectral(MCP(0.7, width=2.1))(tensor(matrix(2))))), theirs, CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("t", [0.2, 1.0, 10.0])
def test_nuclear_prox_against_pyproximal(shape, t):
    pyproximal = pytest.importorskip("pyproximal")
    x = matrix(3, shape)
    theirs = pyproximal.Nuclear(shape, sigma=1.0).prox(x.ravel(), t).reshape(shape)
    equal(prox(NUCLEAR, x, t), theirs, CLOSE)


@pytest.mark.parametrize("kind", ["nuc", 2])
def test_proxes_against_cvxpy(kind):
    cvxpy = pytest.importorskip("cvxpy")
    ours = NUCLEAR if kind == "nuc" else Spectral(SortedL1(1.0, [1.0]))
    x, t = matrix(4), 0.8
    u = cvxpy.Variable(x.shape)
    distance = 0.5 * cvxpy.sum_squares(u - x)
    norm = cvxpy.normNuc(u) if kind == "nuc" else cvxpy.sigma_max(u)
    cvxpy.Problem(cvxpy.Minimize(t * norm + distance)).solve(solver="CLARABEL")
    equal(prox(ours, x, t), u.value, 1e-4)


def test_slope_is_the_polar_factor_also_where_singular_values_repeat():
    for s in ([3.0, 2.0, 1.0], [2.0, 2.0, 2.0], [2.0, 1.0, 1.0]):
        x, polar = with_singular_values(s)
        equal(slope(NUCLEAR, x), polar, 1e-6 if PRECISE else 1e-4)


def test_slope_is_the_smallest_where_singular_values_are_zero():
    """The subdifferential is U·Vᵀ + W, W of norm ≤ 1 in what x does not reach."""
    for s in ([3.0, 1.0], [2.0], []):
        x, smallest = with_singular_values(s)
        found = slope(NUCLEAR, x.astype("float32"), "float32")
        np.testing.assert_allclose(found, smallest, atol=2e-5)
    # float32 leaves about 1e-8 where a 0 should be: not to be taken for a direction.
    low_rank = (matrix(5, (40, 2)) @ matrix(6, (2, 30))).astype("float32")
    found = slope(NUCLEAR, low_rank, "float32")
    equal(np.linalg.norm(found), np.sqrt(2), 1e-4)


def test_prox_gives_exact_low_rank():
    x, _ = with_singular_values([3.0, 1.0, 0.5])
    for t, rank in ((0.4, 3), (0.7, 2), (1.5, 1), (4.0, 0)):
        s = np.linalg.svd(prox(NUCLEAR, x, t), compute_uv=False)
        assert np.sum(s > 1e-5) == rank


@given(st.sampled_from(SHAPES), st.integers(0, 5), st.floats(0.0, 3.0))
def test_orthogonal_invariance(shape, seed, t):
    x = matrix(seed, shape)
    q = ortho_group.rvs(shape[0], random_state=seed)
    r = ortho_group.rvs(shape[1], random_state=seed + 1)
    for p in (NUCLEAR, Spectral(MCP(1.0, width=2.0))):
        equal(value(p, q @ x @ r), value(p, x), 10 * CLOSE)
        equal(value(p, x.T), value(p, x), 10 * CLOSE)
    equal(prox(NUCLEAR, q @ x @ r, t), q @ prox(NUCLEAR, x, t) @ r, 10 * CLOSE)


def test_kernels_become_matrices_by_the_output_axis():
    kernel = matrix(7, (2, 2, 3, 5))
    flat = kernel.reshape(12, 5)
    for p in (NUCLEAR, SpectralNorm(1.0, iterations=200)):
        equal(value(p, kernel), value(p, flat), CLOSE)
        equal(slope(p, kernel), slope(p, flat).reshape(kernel.shape), CLOSE)
    equal(prox(NUCLEAR, kernel, 0.5), prox(NUCLEAR, flat, 0.5).reshape(kernel.shape))


@pytest.mark.parametrize("inner", [Box(), TotalVariation(), SpectralNorm(), "l1", None])
def test_only_a_penalty_without_signs_and_order_can_act_on_singular_values(inner):
    with pytest.raises(ValueError, match="penalty"):
        Spectral(inner)


def test_a_step_for_each_entry_is_refused():
    with pytest.raises(ValueError, match="one t"):
        NUCLEAR.prox(tensor(matrix(0)), np.full((4, 3), 0.5))


# A rank at most.

SPECTRA = {  # by places from 1 on and the rank, and the documented error
    "flat": (lambda j, most: 2.0 - j / len(j), 1e-2),
    "1/√j": (lambda j, most: j**-0.5, 2e-3),
    "1/j": (lambda j, most: 1.0 / j, 1e-5),
    "low rank with noise": (lambda j, most: (j <= most) + 1.0 - j / len(j), 2e-3),
}


def cut(x, t, most):
    """The nuclear norm's proximal map among the matrices of so many ranks, by numpy."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return u[:, :most] * np.maximum(s[:most] - t, 0.0) @ vt[:most]


def cost(u, x, t):
    return t * np.linalg.norm(u, "nuc") + 0.5 * np.sum((u - x) ** 2)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(
    ("n", "most"), [(200, 20), pytest.param(1024, 64, marks=pytest.mark.slow)]
)
def test_a_bounded_rank_has_the_documented_error(name, n, most):
    fall, bound = SPECTRA[name]
    u, v = (np.linalg.qr(matrix(seed, (n, n)))[0] for seed in (0, 1))
    s = fall(np.arange(1, n + 1), most)
    x, p = u * s @ v.T, Spectral(L1(1.0), max_rank=most)
    for t in (s[most], s[most // 2]):  # as many survive, and half as many
        error = np.linalg.norm(prox(p, x, t) - cut(x, t, most))
        assert error < bound * np.linalg.norm(x)
    for t in (0.9 * s[most], 1e-3):  # more would survive
        found = prox(p, x, t)
        assert np.linalg.matrix_rank(found, tol=1e-4) <= most
        assert cost(found, x, t) < 1.01 * cost(cut(x, t, most), x, t)
    total = np.sum(s[:most])
    assert 0.95 * total < value(p, x) < (1 + CLOSE) * total


def test_a_rank_whose_subspace_would_be_the_whole_space_is_exact():
    x = matrix(11, (8, 6))
    p = Spectral(L1(1.0), max_rank=3)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    equal(prox(p, x, 0.1), cut(x, 0.1, 3), CLOSE)
    equal(value(p, x), np.sum(s[:3]), CLOSE)
    equal(slope(p, x), u[:, :3] @ vt[:3], 10 * CLOSE)
    equal(prox(p, x, 0.0), x, CLOSE)


def test_a_bounded_rank_is_a_minimum_among_such_matrices():
    """No matrix of rank 2 costs less, though more singular values would survive."""
    x, t, rng = matrix(12, (16, 14)), 0.5, np.random.default_rng(0)
    best = prox(Spectral(L1(1.0), max_rank=2), x, t)

    u, s, vt = np.linalg.svd(best)
    left, right = u[:, :2] * s[:2], vt[:2]
    for size in (1e-2, 0.1, 1.0):
        for _ in range(20):
            near = left + size * rng.standard_normal(left.shape)
            other = near @ (right + size * rng.standard_normal(right.shape))
            assert cost(best, x, t) <= cost(other, x, t) + CLOSE


# Power iteration.

STRUCTURED = {
    "identity": np.eye(5),
    "ones": np.ones((4, 6)),
    "blocks": np.kron(np.diag([1.0, 2.0]), np.ones((3, 3))) - np.eye(6),
    "hadamard": np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]])
    * np.arange(1, 5)[:, None],
    "differences": np.diff(np.eye(7), axis=0),
    "antisymmetric": np.triu(np.ones((5, 5)), 1) - np.tril(np.ones((5, 5)), -1),
    "one entry": np.eye(1, 12, 5).reshape(3, 4),
    "column": np.arange(1.0, 6.0)[:, None],
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_spectral_norm_of_structured_matrices(name):
    x = STRUCTURED[name]
    for scale in (1.0, 1e20, 1e-20):
        found = value(SpectralNorm(1.0, iterations=100), scale * x)
        equal(found, scale * np.linalg.norm(x, 2), 1e-5)


def test_spectral_norm_error_is_as_documented():
    for seed in range(5):
        x = matrix(seed, (60, 40))
        s = np.linalg.svd(x, compute_uv=False)
        for k in (1, 5, 30, 100):
            error = 1.0 - value(SpectralNorm(1.0, iterations=k), x) / s[0]
            assert -1e-6 <= error <= 0.5 / k
            # The stated rate, for the part of the start that the other vectors hold.
            rate = (s[1] / s[0]) ** (4 * k) * (1 - s[1] / s[0])
            assert error <= 100 * rate + 1e-6 or k < 30


def test_spectral_norm_slope_is_the_outer_product():
    x = matrix(8, (6, 4))
    u, _, vt = np.linalg.svd(x)
    found = slope(SpectralNorm(1.0, iterations=200), x)
    equal(found, np.outer(u[:, 0], vt[0]), 1e-6 if PRECISE else 1e-4)
    exact = slope(Spectral(SortedL1(1.0, [1.0])), x)
    equal(found, exact, 1e-6 if PRECISE else 1e-4)


def test_spectral_norm_keeps_no_state():
    x, p = matrix(9), SpectralNorm(1.0, iterations=2)
    first = value(p, x)
    value(p, matrix(10))
    assert value(p, x) == first
