"""The solver of `tests/problems.py` agrees with other people's."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model as sk
from problems import (
    FEATURES,
    GROUPS,
    PROBLEMS,
    RATIO,
    SAMPLES,
    SORTED,
    WEIGHTS,
    WIDTH,
)

EXACT = {"fit_intercept": False, "tol": 1e-14, "max_iter": 10**6}


def data(name):
    x, y = PROBLEMS[name].data
    return x, y[:, 0] if y.shape[1] == 1 else y


def logistic_regression(name, strength):
    x, y = data(name)
    labels = y if y.ndim == 1 else y.argmax(axis=1)
    weight = 1 / (SAMPLES * strength)
    model = sk.LogisticRegression(C=weight, l1_ratio=1, solver="saga", **EXACT)
    return model.fit(x, labels).coef_


OF_SKLEARN = {
    "lasso": lambda x, y: sk.Lasso(0.1, **EXACT).fit(x, y).coef_,
    "elastic_net": lambda x, y: sk.ElasticNet(0.1, **EXACT).fit(x, y).coef_,
    "weighted_lasso": lambda x, y: (
        sk.Lasso(0.1, **EXACT).fit(x / WEIGHTS, y).coef_ / WEIGHTS
    ),
    "non_negative_lasso": lambda x, y: (
        sk.Lasso(0.1, positive=True, **EXACT).fit(x, y).coef_
    ),
    "multitask": lambda x, y: sk.MultiTaskLasso(0.1, **EXACT).fit(x, y).coef_,
    "l1_logistic": lambda x, y: logistic_regression("l1_logistic", 0.02),
    "multinomial": lambda x, y: logistic_regression("multinomial", 0.025),
}


@pytest.mark.parametrize("name", OF_SKLEARN)
def test_scikit_learn(name):
    exact = PROBLEMS[name].solution
    found = OF_SKLEARN[name](*data(name)).T.reshape(exact.shape)
    stochastic = name in ("l1_logistic", "multinomial")
    np.testing.assert_allclose(found, exact, atol=1e-6 if stochastic else 1e-9)


@pytest.mark.slow  # it compiles for half a minute
@pytest.mark.parametrize("name", ["group_lasso", "slope", "mcp", "scad"])
def test_skglm(name):
    from skglm import datafits, penalties, solvers
    from skglm.utils.data import grp_converter

    x, y = data(name)
    datafit = datafits.Quadratic()
    if name == "group_lasso":
        indices, starts = grp_converter(4, FEATURES)
        ones = np.ones(FEATURES // 4)
        penalty = penalties.WeightedGroupL2(0.3, ones, starts, indices)
        datafit = datafits.QuadraticGroup(starts, indices)
        solver = solvers.GroupBCD(tol=1e-13)
    elif name == "slope":
        penalty = penalties.SLOPE(0.1 * SORTED)
        solver = solvers.FISTA(tol=1e-13, max_iter=100_000, opt_strategy="fixpoint")
    else:
        classical = {
            "mcp": penalties.MCPenalty(0.1, WIDTH / 0.1),
            "scad": penalties.SCAD(0.1, RATIO),
        }
        penalty = classical[name]
        solver = solvers.AndersonCD(tol=1e-13, fit_intercept=False)
    x = np.asfortranarray(x)
    datafit.initialize(x, y)
    found = solver.solve(x, y, datafit, penalty)[0]
    np.testing.assert_allclose(found[:, None], PROBLEMS[name].solution, atol=1e-8)


def of_cvxpy(name, w):
    import cvxpy as cp

    fused = 0.1 * cp.norm1(cp.diff(w[:, 0]))
    groups = [cp.norm2(w[g == GROUPS, 0]) for g in range(FEATURES // 4)]
    return {
        "nuclear": lambda: 0.5 * cp.normNuc(w),
        "total_variation": lambda: fused,
        "fused_lasso": lambda: fused + 0.05 * cp.norm1(w),
        "sparse_group": lambda: 0.1 * cp.norm1(w) + 0.1 * cp.sum(cp.hstack(groups)),
    }[name]()


@pytest.mark.parametrize(
    "name", ["nuclear", "total_variation", "fused_lasso", "sparse_group"]
)
def test_cvxpy(name):
    cp = pytest.importorskip("cvxpy")
    problem = PROBLEMS[name]
    x, y = problem.data
    w = cp.Variable((FEATURES, problem.outputs))
    loss = cp.sum_squares(x @ w - y) / (2 * SAMPLES)
    cp.Problem(cp.Minimize(loss + of_cvxpy(name, w))).solve(solver="CLARABEL")
    # An interior-point solver: its own objective is right to about 1e-9.
    np.testing.assert_allclose(w.value, problem.solution, atol=1e-4)
    assert problem.objective(problem.solution) < problem.objective(w.value) * (
        1 + 1e-12
    )
