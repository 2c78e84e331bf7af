"""`Proximal` reaches the exact minimiser: objective, weights and support."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from descend import descend
from problems import FEATURES, PROBLEMS, SORTED

import keras_penalties as kp
from keras_penalties.optimizers import Proximal

BACKEND = keras.backend.backend()
P = kp.penalties

LOSSES = {
    "squared": kp.losses.HalfSumSquaredError(),
    "logistic": keras.losses.BinaryCrossentropy(from_logits=True),
    "multinomial": keras.losses.CategoricalCrossentropy(from_logits=True),
}

PENALTIES = {
    "lasso": lambda: P.L1(0.1),
    "elastic_net": lambda: P.ElasticNet(0.1, l1_ratio=0.5),
    "non_negative_lasso": lambda: P.L1(0.1),
    "l1_logistic": lambda: P.L1(0.02),
    "multinomial": lambda: P.L1(0.02),
    "nuclear": lambda: P.Spectral(P.L1(0.5)),
    "total_variation": lambda: P.TotalVariation(0.1),
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


def trained(problem, optimizer, steps, **more):
    """The weights, in float64, after so many full-batch steps from 0."""
    faster = 1.0 / CURVATURE[problem.loss.__name__]

    def rate(start):
        decay = keras.optimizers.schedules.CosineDecay
        return decay(faster * start, steps, alpha=0.3)

    dense = keras.layers.Dense(
        problem.outputs,
        use_bias=False,
        kernel_initializer="zeros",
        kernel_constraint=CONSTRAINTS.get(problem.name),
    )
    model = keras.Sequential([keras.Input((FEATURES,)), dense])
    inner = OPTIMIZERS[optimizer](rate)
    penalty = PENALTIES[problem.name]()
    model.compile(Proximal(inner, {"kernel": penalty}), LOSSES[problem.loss.__name__])
    descend(model, *problem.data, steps)
    return keras.ops.convert_to_numpy(dense.kernel).astype("float64")


def rank_held(weights):
    """The weights without singular values that only rounding left, and their rank.

    Float32 can't hold a low rank: the exact minimiser itself, rounded, has singular
    values of 1e-8 where there were none, and an objective 2e-8 too large.
    """
    u, s, vt = np.linalg.svd(weights, full_matrices=False)
    s = np.where(s > 1e-6 * s[0], s, 0.0)
    return (u * s) @ vt, np.count_nonzero(s)


def assert_exact(problem, found, bound=1e-8):
    """The minimum, the minimiser and its support."""
    exact = problem.solution
    if problem.name == "nuclear":
        found, rank = rank_held(found)
        assert rank == rank_held(exact)[1]
    else:
        assert ((found != 0) == (exact != 0)).all()
    assert problem.objective(found) / problem.objective(exact) - 1.0 < bound
    assert np.abs(found - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PENALTIES)
def test_exact(name, optimizer):
    problem = PROBLEMS[name]
    found = trained(problem, optimizer, STEPS.get(name, 2000))
    assert_exact(problem, found)
