"""Orthogonality, cycles, smoothness, references, exclusive groups, against others."""

import math
from functools import partial

import keras
import numpy as np
import pytest
from laws.book import PRECISE, array, equal, prox, slope, tensor, value
from scipy import linalg, optimize, sparse, stats

import keras_penalties as kp
from keras_penalties import autodiff
from keras_penalties.compiling import compiled
from keras_penalties.penalties import (
    L2,
    Acyclicity,
    ExclusiveLasso,
    Orthogonality,
    Quadratic,
    ToReference,
    structure,
)

CLOSE = 1e-9 if PRECISE else 2e-5
SOFT = Orthogonality(1.0)
ACYCLIC = Acyclicity(1.0)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def by_cvxpy(minimise, size):
    cvxpy = pytest.importorskip("cvxpy")
    u = cvxpy.Variable(size)
    cvxpy.Problem(cvxpy.Minimize(minimise(cvxpy, u))).solve(solver="CLARABEL")
    return u.value


# Orthogonality.


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_orthogonality_of_both_sides(shape):
    """The two sides' formulas differ by |rows - columns|, so in no slope."""
    w = noise(*shape)
    columns = np.linalg.norm(w.T @ w - np.eye(shape[1])) ** 2
    rows = np.linalg.norm(w @ w.T - np.eye(shape[0])) ** 2
    equal(value(SOFT, w), min(columns, rows), CLOSE)
    equal(max(columns, rows), value(SOFT, w) + abs(shape[0] - shape[1]), CLOSE)
    equal(slope(SOFT, w), 4 * w @ (w.T @ w - np.eye(shape[1])), CLOSE)


def test_orthogonality_is_zero_where_columns_or_rows_are_orthonormal():
    q, _ = np.linalg.qr(noise(6, 3))
    for w in (q, q.T, q.reshape(2, 3, 3)):
        assert abs(value(SOFT, w)) < 1e-10
        assert np.all(np.abs(slope(SOFT, w)) < 1e-5)


def test_orthogonality_has_a_slope_at_a_row_of_zeros():
    w = noise(4, 3)
    w[1] = 0.0
    assert np.all(np.isfinite(slope(SOFT, w, "float32")))
    assert np.all(slope(SOFT, w)[1] == 0.0)


@pytest.mark.parametrize("t", [1e-4, 0.1, 0.25, 3.0, 1e4])
def test_orthogonality_prox_solves_the_cubic(t):
    """The minimiser for each singular value, by numpy's roots of the derivative."""
    # A vector of a σ of 0.001 beside one of 40 is not in float32's digits.
    sigma = np.array([1e-3, 0.3, 1.0, 1.7, 40.0] if PRECISE else [0.5, 0.8, 1, 1.7, 4])
    u, v = np.linalg.qr(noise(6, 5))[0], np.linalg.qr(noise(5, 5, seed=1))[0]

    def cost(s, target):
        return t * (s**2 - 1) ** 2 + 0.5 * (s - target) ** 2

    def best(target):
        roots = np.roots([4 * t, 0, 1 - 4 * t, -target])
        return min(roots[np.abs(roots.imag) < 1e-9].real, key=lambda s: cost(s, target))

    expected = u * [best(s) for s in sigma] @ v.T
    equal(prox(SOFT, u * sigma @ v.T, t), expected, 1e-7 if PRECISE else 3e-5)


def test_orthogonality_prox_beats_a_descent():
    x, t = noise(3, 2), 0.6

    def objective(w):
        w = w.reshape(3, 2)
        gap = np.linalg.norm(w.T @ w - np.eye(2)) ** 2
        return t * gap + 0.5 * np.sum((w - x) ** 2)

    starts = [noise(6, seed=s) for s in range(8)]
    best = min(optimize.minimize(objective, s, method="BFGS").fun for s in starts)
    equal(objective(prox(SOFT, x, t).ravel()), best, 1e-6)


def soft_orthogonality(w):
    """The value and its gradient, by numpy."""
    excess = w.T @ w - np.eye(w.shape[1])
    return np.sum(excess**2), 4 * w @ excess


@pytest.mark.parametrize("samples", [1, 3, 7])
def test_the_mean_over_all_places_of_the_columns_is_exact(samples):
    """So what is estimated has no bias, if each place is as likely as another."""
    w = noise(9, 8)
    steps = np.arange(samples) * (8 // samples)
    values, slopes = [], []
    for start in range(8):
        places = tensor((start + steps) % 8, "int32")
        found, pullback = structure.by_columns(tensor(w), places)
        values.append(array(found))
        slopes.append(array(pullback(tensor(1.0))))
    exact, gradient = soft_orthogonality(w)
    equal(np.mean(values), exact, CLOSE)
    equal(np.mean(slopes, axis=0), gradient, CLOSE)


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
def test_an_estimate_is_unbiased_over_draws(shape):
    """Weights that differ in their last digits draw anew; 4 standard errors of room."""
    w, p, count = noise(*shape) / 4, Orthogonality(1.0, samples=3), 300
    exact, gradient = value(SOFT, w), slope(SOFT, w)
    directions = np.stack([gradient, noise(*shape, seed=1), noise(*shape, seed=2)])
    found = np.zeros((count, 1 + len(directions)))
    both = compiled(partial(autodiff.value_and_gradient, p.value))
    for k in range(count):
        near = w + 1e-6 * noise(*shape, seed=3 + k)
        total, slopes = map(array, both(tensor(near)))
        found[k] = total, *np.sum(directions * slopes, axis=(1, 2))
    expected = [exact, *np.sum(directions * gradient, axis=(1, 2))]
    deviations = np.std(found, axis=0)
    assert np.all(deviations > 0.01 * np.abs(expected))  # it is no exact value
    error = np.abs(np.mean(found, axis=0) - expected)
    assert np.all(error < 4 * deviations / np.sqrt(count))


@pytest.mark.parametrize("rate", [1e-2, 1e-6])
def test_each_step_draws_each_place_as_often(rate):
    """Also where a step is so small that few digits of the weights change."""
    w, step = noise(20, 11), rate * noise(20, 11, seed=1)
    start = [w + k * step for k in range(1100)]
    hashed = compiled(structure.hashed)
    hashes = [int(array(hashed(tensor(x, "float32")))) for x in start]
    places = np.bincount(np.array(hashes) % 11, minlength=11)
    assert stats.chisquare(places).pvalue > 1e-3
    follows = np.bincount(np.diff(hashes) % 11, minlength=11)
    assert stats.chisquare(follows).pvalue > 1e-3


def test_equal_weights_have_equal_estimates():
    w, p = noise(20, 12), Orthogonality(1.0, samples=3)
    assert value(p, w) == value(p, w.copy())
    with pytest.raises(NotImplementedError, match="proximal"):
        p.prox(tensor(w), 0.5)


def test_a_slot_that_samples_two_columns_makes_all_orthonormal():
    """A draw that a compiled step kept would leave the other columns as they are."""
    kernel = {"use_bias": False, "kernel_regularizer": Orthogonality(1.0, samples=2)}
    dense = keras.layers.Dense(10, kernel_initializer="glorot_normal", **kernel)
    model = keras.Sequential([keras.Input((16,)), dense])
    model.compile(keras.optimizers.SGD(0.004), "mse")
    before = value(SOFT, array(dense.kernel))
    nothing = np.zeros((300, 16)), np.zeros((300, 10))
    model.fit(*nothing, batch_size=1, epochs=2, verbose=0)
    assert value(SOFT, array(dense.kernel)) < 1e-3 * before


# Cycles.


@pytest.mark.parametrize("scale", [1e-4, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_acyclicity_against_scipy(size, scale):
    w = scale * noise(size, size)
    exponential = linalg.expm(w * w)
    if scale >= 0.3:  # else scipy's 1 + h has lost the digits of h
        equal(value(ACYCLIC, w), np.trace(exponential) - size, CLOSE)
    equal(slope(ACYCLIC, w), exponential.T * 2 * w, CLOSE)


def test_acyclicity_keeps_its_digits_near_zero():
    w = np.array([[0.0, 1e-4], [1e-3, 0.0]])
    # 2·cosh(√(w₀₁²·w₁₀²)) - 2, to the first order
    equal(value(ACYCLIC, w, "float32"), (1e-4 * 1e-3) ** 2, 1e-6)


def test_acyclicity_is_zero_for_graphs_without_cycles_only():
    dag = np.triu(100.0 * noise(6, 6), 1)
    order = np.random.default_rng(0).permutation(6)
    assert value(ACYCLIC, dag[order][:, order]) == 0.0
    dag[5, 0] = 1e-3
    assert value(ACYCLIC, dag) > 0.0
    assert value(ACYCLIC, 0.1 * np.eye(3)) > 0.0


def test_acyclicity_near_the_largest_number():
    equal(value(ACYCLIC, np.diag([9.0, 1.0]), "float32"), math.exp(81), 1e-4)
    for x in (10.0, 1e4, 1e30):
        assert value(ACYCLIC, np.full((3, 3), x), "float32") > 1e36


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2)])
def test_acyclicity_takes_square_matrices_only(shape):
    with pytest.raises(ValueError, match="square"):
        ACYCLIC(np.zeros(shape))


# Smoothness.


def test_laplacian_against_scipy():
    graph = np.abs(noise(5, 5))
    graph = np.triu(graph, 1) + np.triu(graph, 1).T
    p = Quadratic.laplacian(1.0, graph)
    equal(p.matrix, sparse.csgraph.laplacian(graph))
    w = noise(5, 3)
    pairs = sum(
        graph[i, j] * np.sum((w[i] - w[j]) ** 2) for i in range(5) for j in range(5)
    )
    equal(value(p, w), pairs / 4, CLOSE)
    assert value(p, np.ones((5, 2))) < 1e-12


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("t", [0.1, 1e6])
def test_quadratic_against_a_solver(axis, t):
    root = noise(4, 4)
    a = root.T @ root
    p = Quadratic(1.0, a, axis=axis)
    x = noise(*(4 if n == axis % 3 else 2 for n in range(3)))
    equal(slope(p, x), np.moveaxis(np.tensordot(a, x, (1, axis)), 0, axis), CLOSE)
    columns = np.moveaxis(x, axis, 0).reshape(4, -1)
    solved = linalg.solve(np.eye(4) + t * a, columns).reshape(4, 2, 2)
    solved = np.moveaxis(solved, 0, axis)
    np.testing.assert_allclose(prox(p, x, t), solved, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_differences(order):
    p, x = Quadratic.differences(1.0, 7, order), noise(7, 2)
    equal(value(p, x), 0.5 * np.sum(np.diff(x, order, axis=0) ** 2), CLOSE)
    line = np.arange(7.0)[:, None] ** (order - 1)
    np.testing.assert_allclose(prox(p, line, 1e4), line, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "matrix", [[[1.0, 2.0]], [[1.0, 1.0], [0.0, 1.0]], [[-1.0]], [1.0], [[np.nan]], "A"]
)
def test_bad_matrices(matrix):
    with pytest.raises(ValueError, match="matrix"):
        Quadratic(1.0, matrix)
    with pytest.raises(ValueError, match="graph"):
        Quadratic.laplacian(1.0, matrix)


def test_a_matrix_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="3 entries along axis 0"):
        Quadratic(1.0, np.eye(3))(np.zeros((4, 3)))


# References.


def test_reference_against_a_solver():
    x, values, weights = noise(4, 3), noise(3, seed=1), np.abs(noise(4, 1, seed=2))
    weights[0] = 0.0
    p, t = ToReference(1.0, values, weights), 0.7

    def objective(u):
        u = u.reshape(4, 3)
        distance = 0.5 * np.sum((u - x) ** 2)
        return 0.5 * t * np.sum(weights * (u - values) ** 2) + distance

    best = optimize.minimize(objective, x.ravel(), method="BFGS", tol=1e-10).x
    np.testing.assert_allclose(prox(p, x, t).ravel(), best, atol=2e-6)
    assert np.all(prox(p, x, 1e30)[0] == array(tensor(x))[0])
    equal(value(p, x), 0.5 * np.sum(weights * (x - values) ** 2), CLOSE)
    equal(value(ToReference(1.0), x), value(L2(1.0), x) / 2, CLOSE)


def test_the_reference_is_saved_with_the_model(tmp_path):
    dense = keras.layers.Dense(2, name="dense")
    dense.build((None, 3))
    fisher = np.abs(noise(3, 2)).astype("float32")
    near = ToReference(0.1, dense.kernel, weights=keras.ops.convert_to_tensor(fisher))
    equal(near.values, array(dense.kernel), 1e-7)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, kernel_regularizer=near)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    assert loaded.kernel_regularizer == near
    equal(float(loaded.losses[0]), float(near(loaded.kernel)), 1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (4, 1)])
def test_a_reference_larger_than_the_weight_is_refused(shape):
    with pytest.raises(ValueError, match="broadcast"):
        ToReference(1.0, np.zeros((4, 3)))(np.zeros(shape))


@pytest.mark.parametrize("bad", [np.nan, [np.inf], "x", [[1.0], [2.0, 3.0]], True])
def test_bad_references(bad):
    with pytest.raises(ValueError, match="values"):
        ToReference(1.0, bad)
    with pytest.raises(ValueError, match="weights"):
        ToReference(1.0, 0.0, [-1.0])


# Exclusive groups.


@pytest.mark.parametrize("t", [0.05, 0.5, 20.0])
def test_exclusive_lasso_against_cvxpy(t):
    groups, x = [[0, 4, 5], [1, 2]], noise(7)
    each = t * np.exp(noise(7, seed=1))
    p = ExclusiveLasso(1.0, groups=groups)
    for steps in (np.full(7, t), each):
        expected = by_cvxpy(
            lambda cp, u, s=steps: (
                sum(cp.square(cp.norm1(u[g])) for g in groups) / 2
                + cp.sum(cp.multiply(1 / s, cp.square(u - x))) / 2
            ),
            7,
        )
        np.testing.assert_allclose(prox(p, x, steps), expected, atol=2e-4)
    assert prox(p, x, t)[3] == array(tensor(x))[3]  # in no group


def test_exclusive_lasso_by_loops():
    x = noise(3, 4)
    rows = sum(0.5 * sum(abs(v) for v in row) ** 2 for row in x)
    equal(value(ExclusiveLasso(1.0, axis=0), x), rows, CLOSE)
    equal(
        slope(ExclusiveLasso(1.0, axis=0), x),
        np.sum(np.abs(x), 1)[:, None] * np.sign(x),
    )
    equal(value(ExclusiveLasso(1.0, axis=[0, 1]), x), value(L2(0.5), x) / 2, CLOSE)
    equal(prox(ExclusiveLasso(1.0, axis=[0, 1]), x, 0.4), x / 1.4)


def test_exclusive_lasso_keeps_a_few_of_each_group():
    kept = prox(ExclusiveLasso(1.0, axis=0), noise(5, 8), 1.0) != 0
    assert np.all((kept.sum(1) >= 1) & (kept.sum(1) < 8))


def test_bad_groups():
    for bad in (
        {"groups": [[0], [0, 1]]},
        {"groups": []},
        {"groups": [[0]], "axis": 0},
    ):
        with pytest.raises(ValueError, match="groups"):
            ExclusiveLasso(1.0, **bad)
    with pytest.raises(ValueError, match="groups"):
        kp.get("exclusive_lasso(1.0, groups=[[0, 5]])")(np.ones(4))
