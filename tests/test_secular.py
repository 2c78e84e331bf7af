"""The norm of a group after a proximal step with one t per entry: exact to rounding."""

import numpy as np
import pytest
import scipy.optimize
from laws.book import PRECISE, array, equal, prox, tensor
from strategies import WIDE

from keras_penalties import compiling
from keras_penalties.penalties import L1, Grouped, secular

TIGHT = 1e-9 if PRECISE else 3e-6
EPS = float(np.finfo(WIDE).eps)


def exact_length(x, t):
    """The root of `Σ x²/(r + t)² = 1` by bracketing, in float64; 0 if there is none."""
    x, t = np.abs(x[x != 0]).astype("float64"), t[x != 0].astype("float64")

    def excess(r):
        return np.sum((x / (r + t)) ** 2) - 1

    if len(x) == 0 or (np.all(t > 0) and excess(0.0) <= 0):
        return 0.0
    low, high = max(np.max(x - t), 0.0), np.linalg.norm(x)
    for end in (low, high):
        if end > 0 and abs(excess(end)) < 1e-15:
            return end
    return scipy.optimize.brentq(excess, low, high, xtol=1e-300, rtol=1e-15)


def ulps_off(u, x, t):
    """The largest error, in what an eps of u and one of ‖x‖ would make together."""
    x, t = x.astype("float64"), t.astype("float64")
    r = exact_length(x, t)
    if r == 0:
        return np.inf if np.any(u) else 0.0
    exact = x * (r / (r + t))
    unit = EPS * np.abs(exact) * (1 + np.linalg.norm(x) * t / (r * (r + t)))
    return np.max(np.abs(u - exact)[x != 0] / unit[x != 0])


def group(kind, scale, rng, size=30):
    """A group and its t, the largest about `scale` times its norm."""
    x = rng.normal(size=size)
    if kind == "one idle unit":  # of rare gradients, so of a large t and small weights
        x[0] *= 1e-3
    factor = {
        "constant": np.ones(size),
        "noisy": np.exp(0.5 * rng.normal(size=size)) / 3,
        "one idle unit": np.where(np.arange(size), 1e-3, 1.0),
        "some without": rng.permutation(np.arange(size) % 2.0),
        "decades": 10 ** rng.uniform(-8, 0, size),
    }[kind]
    return x.astype(WIDE), (scale * np.linalg.norm(x) * factor).astype(WIDE)


KINDS = ["constant", "noisy", "one idle unit", "some without", "decades"]


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("kind", KINDS)
def test_a_length_that_is_taken_for_exact_is(kind):
    """On both sides of where it takes a sum more, and of where Newton's method."""
    rng, ways = np.random.default_rng(5), set()
    for scale in np.logspace(-8, 0, 60):
        x, t = group(kind, scale, rng)
        lengths = secular.Secular(tensor(x[None]), tensor(t[None]), (1,))
        way, (size, far) = 1, lengths._estimate()
        if far:
            way, (size, far) = 2, lengths._closer(size)
        ways.add(3 if far else way)
        r = array(size)[0, 0]
        assert r <= exact_length(x, t) + 3 * EPS * np.linalg.norm(x)
        if not far:
            u = x * (r / np.maximum(r + t.astype("float64"), 1e-300))
            assert ulps_off(u, x, t) <= 3, scale
    assert ways == ({1, 2} if kind in ("constant", "one idle unit") else {1, 2, 3})


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("kind", KINDS)
def test_a_t_per_entry_is_exact_to_rounding(kind):
    """Each group alone, and all together, where the hardest one decides the way."""
    rng, penalty = np.random.default_rng(4), Grouped(L1(), axis=0)
    compiled = compiling.compiled(penalty.prox)
    cases = [group(kind, scale, rng) for scale in np.logspace(-8, 1, 20)]
    cases.append((np.zeros(30, WIDE), cases[0][1]))
    together = prox(penalty, *map(np.stack, zip(*cases, strict=True)))
    for (x, t), u in zip(cases, together, strict=True):
        assert ulps_off(u, x, t) <= 3
        alone = compiled(tensor(x[None]), tensor(t[None]))
        assert ulps_off(array(alone)[0], x, t) <= 3


@pytest.mark.parametrize("unit", [2.0**-50, 2.0**-30, 2.0**30, 2.0**50])
def test_the_unit_of_a_group_does_not_matter(unit):
    """Where squares and products of float32 overflow, or are lost, too."""
    rng, compiled = (
        np.random.default_rng(6),
        compiling.compiled(Grouped(L1(), axis=0).prox),
    )
    for kind in KINDS:
        for scale in (1e-4, 0.1, 0.9, 3.0):
            x, t = group(kind, scale, rng)
            u = array(compiled(tensor(unit * x[None]), tensor(unit * t[None])))[0]
            assert ulps_off(u / unit, x, t) <= 3, (kind, scale)


@pytest.mark.parametrize("rest", [0.0, 1e-4, 1e-3, 1e-2])
def test_groups_at_the_edge_of_zero(rest):
    """t takes all but a little; a small entry without any holds against it."""
    rng, compiled = (
        np.random.default_rng(9),
        compiling.compiled(Grouped(L1(), axis=0).prox),
    )
    for gap in np.logspace(-6, -1, 16):
        x = rng.normal(size=30)
        x[0] *= rest
        t = np.full(30, (1 - gap) * np.linalg.norm(x))
        t[0] *= rest == 0
        x, t = x.astype(WIDE), t.astype(WIDE)
        u = array(compiled(tensor(x[None]), tensor(t[None])))[0]
        assert ulps_off(u, x, t) <= 3, gap


def test_zeros_are_exact_beside_pulls_of_any_size():
    x = np.array([[3.0, 4.0], [3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [0.0, 2.0]])
    t = np.array([[0.0, 1e30], [1e30, 1e30], [0.5, 0.6], [0.0, 1.0], [0.0, 1.0]])
    u = prox(Grouped(L1(), axis=0), x, t)
    np.testing.assert_array_equal(u[1:4], np.zeros((3, 2)))
    equal(u[[0, 4]], [[3.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("axis", [0, -1])
def test_a_compiled_map_of_a_large_weight_is_the_plain_one(axis):
    """Sums may then be taken by slices, of which the last is shorter."""
    rng, penalty = np.random.default_rng(8), Grouped(L1(), axis=axis)
    x = rng.normal(size=(257, 259))
    t = 10 ** rng.uniform(-6, 1.5, size=x.shape)
    compiled = compiling.compiled(penalty.prox)
    equal(array(compiled(tensor(x), tensor(t))), prox(penalty, x, t), TIGHT)
