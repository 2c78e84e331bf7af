"""Projections against scipy, pyproximal, skglm, Keras and cvxpy, and in `Proximal`."""

import keras
import numpy as np
import pytest
from descend import descend
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from laws.book import PRECISE, array, equal, prox, tensor, value
from scipy import optimize
from strategies import tensors

import keras_penalties as kp
from keras_penalties.penalties import (
    Box,
    L1Ball,
    L2Ball,
    Monotone,
    Simplex,
)
from keras_penalties.penalties.indicators import Indicator

CLOSE = 1e-9 if PRECISE else 5e-6
SETS = [Box(), Box(-0.5, 1.0), L1Ball(1.5), L2Ball(0.8, axis=0), Simplex(), Monotone()]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def projection(p, x):
    return prox(p, x, 0.5)


# Against others.


@pytest.mark.parametrize("radius", [0.1, 1.0, 4.0, 100.0])
def test_balls_and_simplex_against_pyproximal(radius):
    pyproximal = pytest.importorskip("pyproximal")
    x = 2.0 * noise(9)
    others = {
        L1Ball(radius): pyproximal.L1Ball(9, radius, maxiter=500, xtol=1e-13),
        L2Ball(radius): pyproximal.EuclideanBall(np.zeros(9), radius),
        Box(-radius, radius): pyproximal.Box(-radius, radius),
        Simplex(radius): pyproximal.Simplex(9, radius, maxiter=500, xtol=1e-13),
    }
    for ours, theirs in others.items():
        expected = theirs.prox(x.copy(), 1.0)
        np.testing.assert_allclose(projection(ours, x), expected, atol=2e-5)


def test_l2_ball_against_skglm():
    prox_funcs = pytest.importorskip("skglm.utils.prox_funcs")
    x = noise(6)
    expected = prox_funcs.proj_L2ball(x.copy())
    equal(projection(L2Ball(1.0), x), expected, CLOSE)


def test_l2_ball_for_each_unit_is_the_max_norm_of_keras():
    kernel = 2.0 * noise(2, 2, 3, 5)
    theirs = keras.constraints.MaxNorm(1.2, axis=[0, 1, 2])(tensor(kernel, "float32"))
    ours = projection(L2Ball(1.2, axis=-1), kernel)
    np.testing.assert_allclose(ours, array(theirs), atol=1e-6)  # theirs adds an ε
    assert np.max(np.linalg.norm(ours.reshape(12, 5), axis=0)) <= 1.2 * (1 + 1e-6)


def test_monotone_against_scipy():
    y = noise(12)
    rising = optimize.isotonic_regression(y).x
    np.testing.assert_allclose(projection(Monotone(), y), rising, atol=CLOSE)
    falling = optimize.isotonic_regression(y, increasing=False).x
    found = projection(Monotone(decreasing=True), y)
    np.testing.assert_allclose(found, falling, atol=CLOSE)
    t = np.exp(noise(12, seed=1))
    weighted = optimize.isotonic_regression(y, weights=1 / t).x
    np.testing.assert_allclose(prox(Monotone(), y, t), weighted, atol=CLOSE)


SHAPED = {
    "l1": (L1Ball(1.5), lambda cp, u: [cp.norm1(u) <= 1.5]),
    "l2": (L2Ball(1.5), lambda cp, u: [cp.norm2(u) <= 1.5]),
    "simplex": (Simplex(1.5), lambda cp, u: [u >= 0, cp.sum(u) == 1.5]),
    "box": (Box(-0.5, 0.7), lambda cp, u: [u >= -0.5, u <= 0.7]),
    "rising": (Monotone(), lambda cp, u: [cp.diff(u) >= 0]),
}


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_projection_in_a_metric_against_cvxpy(name, spread):
    cvxpy = pytest.importorskip("cvxpy")
    ours, constraints = SHAPED[name]
    x, t = 2.0 * noise(8), np.exp(spread * noise(8, seed=1))
    u = cvxpy.Variable(8)
    distance = cvxpy.sum(cvxpy.multiply(t.min() / t, cvxpy.square(u - x)))
    problem = cvxpy.Problem(cvxpy.Minimize(distance), constraints(cvxpy, u))
    exact = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
    problem.solve(solver="CLARABEL", **exact)
    np.testing.assert_allclose(prox(ours, x, t), u.value, atol=5e-5)


# What every projection does.


@pytest.mark.parametrize("p", SETS, ids=repr)
@given(x=tensors(), y=tensors(shapes=((4, 3),)), t=st.sampled_from([1e-3, 1.0, 1e3]))
def test_projections_stay_and_come_nearer(p, x, y, t):
    u = prox(p, x, t)
    np.testing.assert_allclose(prox(p, u, 1.0), u, atol=1e-5)
    assert value(p, u) == 0.0
    if x.shape == y.shape:
        moved, far = u - prox(p, y, 1.0), x - y
        assert np.sum(moved**2) <= np.sum(moved * far) + 1e-4


@pytest.mark.parametrize("p", SETS, ids=repr)
def test_a_step_of_zero_stays_and_every_other_is_the_projection(p):
    x = noise(4, 3)
    equal(prox(p, x, 0.0), x)
    equal(prox(p, x, 1e-6), prox(p, x, 1e6))


def test_value_is_infinite_outside_and_zero_on_the_edge():
    for p, inside, outside in [
        (Box(0.0, 1.0), [0.0, 1.0], [0.0, 1.001]),
        (L1Ball(1.0), [0.5, -0.5], [0.5, -0.501]),
        (L2Ball(5.0), [3.0, 4.0], [3.0, 4.01]),
        (Simplex(), [0.25, 0.75], [0.25, 0.76]),
        (Simplex(), [0.0, 1.0], [-0.01, 1.01]),
        (Monotone(), [1.0, 1.0], [1.0, 0.999]),
        (Monotone(decreasing=True), [1.0], [1.0, 1.001]),
    ]:
        assert value(p, np.array(inside)) == 0.0, p
        assert value(p, np.array(outside)) == np.inf, p


def test_large_sums_are_within_rounding():
    x = noise(3000)
    for p in (L1Ball(5.0), L2Ball(5.0), Simplex(5.0), Monotone()):
        assert value(p, prox(p, x, 1.0, "float32"), "float32") == 0.0


# Arguments.


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(None, None),
        lambda: Box(1.0, 0.0),
        lambda: Box(np.nan, 0.0),
        lambda: L1Ball(0.0),
        lambda: L2Ball(-1.0),
        lambda: L2Ball(1.0, axis=0.5),
        lambda: Simplex(0.0),
        lambda: Monotone(axis=0.5),
        lambda: Monotone(decreasing=1),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="Invalid value for argument"):
        make()


def test_there_is_no_strength():
    with pytest.raises(TypeError, match="no strength"):
        2.0 * Box()
    assert Indicator.strength == 1.0


# Where they act.


def least_squares(penalty, inner, steps):
    """The weights after a full-batch fit of `‖xw - y‖²/n` from 0 in the set."""
    x, y = noise(40, 5), noise(40, seed=1)
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((5,)), dense])
    optimizer = kp.optimizers.Proximal(inner, {".*kernel": penalty})
    model.compile(optimizer, loss=keras.losses.MeanSquaredError())
    x32, y32 = x.astype("float32"), y.astype("float32")[:, None]
    descend(model, x32, y32, steps)
    return array(dense.kernel)[:, 0], x, y


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_proximal_reaches_non_negative_least_squares(inner):
    rate = {"sgd": keras.optimizers.SGD(0.2), "adam": keras.optimizers.Adam(0.02)}
    found, x, y = least_squares(Box(), rate[inner], 400)
    best, _ = optimize.nnls(x, y)
    np.testing.assert_allclose(found, best, atol=2e-4)
    assert np.array_equal(found == 0, best == 0)


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_proximal_reaches_least_squares_on_the_simplex(inner):
    rate = {"sgd": keras.optimizers.SGD(0.2), "adam": keras.optimizers.Adam(0.02)}
    found, x, y = least_squares(Simplex(), rate[inner], 400)
    best = optimize.minimize(
        lambda w: np.mean((x @ w - y) ** 2),
        np.full(5, 0.2),
        method="SLSQP",
        bounds=[(0, None)] * 5,
        constraints={"type": "eq", "fun": lambda w: np.sum(w) - 1},
        options={"ftol": 1e-14},
    ).x
    np.testing.assert_allclose(found, best, atol=5e-4)
    equal(np.sum(found), 1.0, 1e-6)


@pytest.mark.parametrize("size", [10, 1000])
def test_shares_sum_up_for_any_spread_of_steps(size):
    rng = np.random.default_rng(size)
    for scale in (0.01, 1.0, 1e6):
        x = np.float32(scale * rng.normal(size=size))
        t = np.float32(10.0 ** rng.uniform(-12, 0, size))
        t[rng.random(size) < 0.3] = 0.0
        t[0] = 1.0
        shares = prox(kp.penalties.Simplex(2.0), x, t, "float32")
        assert np.min(shares) >= 0
        assert np.sum(shares) == pytest.approx(2.0, rel=4e-7)
        for ball, norm in (
            (kp.penalties.L1Ball(2.0), 1),
            (kp.penalties.L2Ball(2.0), 2),
        ):
            length = np.linalg.norm(prox(ball, x, t, "float32"), norm)
            assert length <= 2.0 * (1 + 4e-7)


def test_inputs_that_are_always_0_take_what_is_left_under_adam():
    """There an entry without a gradient has by far the largest t."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 10)).astype("float32")
    x[:, [2, 5]] = 0.0
    y = (x @ rng.dirichlet(np.ones(10)).astype("float32"))[:, None]
    start = keras.initializers.Constant(0.1)
    line = keras.layers.Dense(1, use_bias=False, name="line", kernel_initializer=start)
    model = keras.Sequential([keras.Input((10,)), line])
    shares = {"line/kernel": kp.penalties.Simplex()}
    model.compile(kp.optimizers.Proximal(keras.optimizers.Adam(0.01), shares), "mse")
    model.fit(x, y, batch_size=80, epochs=30, verbose=0)
    kernel = ops.convert_to_numpy(line.kernel).astype("float64")
    assert kernel.sum() == pytest.approx(1.0, rel=4e-7)
