"""`Proximal` reaches the exact minimiser: objective, weights and support."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from descend import descend
from problems import FEATURES, KNEE, PROBLEMS, RATIO, SORTED, WEIGHTS, WIDTH

import keras_penalties as kp
from keras_penalties.optimizers import Proximal

BACKEND = keras.backend.backend()
P = kp.penalties

LOSSES = {
    "squared": kp.losses.HalfSumSquaredError,
    "logistic": lambda: keras.losses.BinaryCrossentropy(from_logits=True),
    "multinomial": lambda: keras.losses.CategoricalCrossentropy(from_logits=True),
}

BLOCKS = np.arange(FEATURES).reshape(-1, 4).tolist()
PENALTIES = {
    "lasso": lambda: P.L1(0.1),
    "elastic_net": lambda: P.ElasticNet(0.1, l1_ratio=0.5),
    "weighted_lasso": lambda: P.Grouped(P.L1(0.1), axis=0, weights=WEIGHTS.tolist()),
    "non_negative_lasso": lambda: P.L1(0.1),
    "l1_logistic": lambda: P.L1(0.02),
    "multinomial": lambda: P.L1(0.025),
    "multitask": lambda: P.Grouped(P.L1(0.1), axis=0),
    "group_lasso": lambda: P.Grouped(P.L1(0.3), groups=BLOCKS),
    "sparse_group": lambda: P.L1(0.1) + P.Grouped(P.L1(0.1), groups=BLOCKS),
    "mcp": lambda: P.MCP(0.1, width=WIDTH),
    "scad": lambda: P.SCAD(0.1, knee=KNEE, ratio=RATIO),
    "nuclear": lambda: P.Spectral(P.L1(0.5)),
    "total_variation": lambda: P.TotalVariation(0.1),
    "fused_lasso": lambda: P.TotalVariation(0.1) + P.L1(0.05),
    "slope": lambda: P.SortedL1(0.1, SORTED.tolist()),
}
CURVATURE = {"squared": 1.0, "logistic": 0.25, "multinomial": 0.5}
CONSTRAINTS = {"non_negative_lasso": "non_neg"}
STEPS = {"l1_logistic": 8000, "multinomial": 8000}
OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate(0.12)),
    "momentum": lambda rate: keras.optimizers.SGD(rate(0.05), momentum=0.9),
    "adam": lambda rate: keras.optimizers.Adam(rate(0.05)),
}
# The mean of a hundred gradients: with fewer, the noise of a batch lifts zeros.
STEADY = {
    "momentum": lambda rate: keras.optimizers.SGD(rate(0.002), momentum=0.99),
    "adam": lambda rate: keras.optimizers.Adam(rate(0.02), beta_1=0.99),
}
# What shows most in a few seconds; the others are slow.
QUICK = ("lasso", "multitask", "mcp", "nuclear")
SLOW = [pytest.mark.slow, pytest.mark.one_backend]
NAMES = [n if n in QUICK else pytest.param(n, marks=SLOW) for n in PENALTIES]


def trained(problem, make, steps, end, batch=None):
    """The weights, in float64, after so many steps from 0 under a decaying rate."""
    curvature = CURVATURE[problem.loss.__name__]

    def rate(start):
        decay = keras.optimizers.schedules.CosineDecay
        return decay(start / curvature, steps, alpha=end)

    dense = keras.layers.Dense(
        problem.outputs,
        use_bias=False,
        kernel_initializer="zeros",
        kernel_constraint=CONSTRAINTS.get(problem.name),
    )
    model = keras.Sequential([keras.Input((FEATURES,)), dense])
    sparse = Proximal(make(rate), {"kernel": PENALTIES[problem.name]()})
    model.compile(sparse, LOSSES[problem.loss.__name__]())
    descend(model, *problem.data, steps, batch)
    return keras.ops.convert_to_numpy(dense.kernel).astype("float64")


def rank_held(weights):
    """The weights without singular values that only rounding left, and their rank.

    Float32 can't hold a low rank: the exact minimiser itself, rounded, has singular
    values of 1e-8 where there were none, and an objective 2e-8 too large.
    """
    u, s, vt = np.linalg.svd(weights, full_matrices=False)
    s = np.where(s > 1e-6 * s[0], s, 0.0)
    return (u * s) @ vt, np.count_nonzero(s)


def assert_exact(problem, found, excess=1e-8, error=1e-5):
    """The minimum, the minimiser and its support."""
    exact = problem.solution
    if problem.name == "nuclear":
        found, rank = rank_held(found)
        assert rank == rank_held(exact)[1]
    else:
        assert ((found != 0) == (exact != 0)).all()
    assert problem.objective(found) / problem.objective(exact) - 1.0 < excess
    assert np.abs(found - exact).max() < error * np.abs(exact).max()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NAMES)
def test_exact(name, optimizer):
    problem = PROBLEMS[name]
    found = trained(problem, OPTIMIZERS[optimizer], STEPS.get(name, 2000), end=0.3)
    assert_exact(problem, found)


@pytest.fixture
def float64():
    keras.backend.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.backend.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras has float64 on TensorFlow")
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("name", PENALTIES)
def test_exact_in_float64(name, optimizer, float64):
    problem = PROBLEMS[name]
    found = trained(problem, OPTIMIZERS[optimizer], 4000, end=0.3)
    assert_exact(problem, found, excess=1e-12, error=1e-9)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("optimizer", STEADY)
@pytest.mark.parametrize("name", PENALTIES)
def test_mini_batches(name, optimizer):
    """With new batches of 20 in each epoch of 100 samples."""
    problem = PROBLEMS[name]
    found = trained(problem, STEADY[optimizer], 5000, end=0.001, batch=20)
    assert_exact(problem, found, excess=1e-4, error=0.02)
