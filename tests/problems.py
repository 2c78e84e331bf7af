"""Small penalised regressions, and their minimisers found without this package.

Everything here is numpy in float64. Data are rounded to float32 first, so that a model
that trains in float32 has the very same problem. `tests/test_problems.py` holds the
solver against scikit-learn, skglm and cvxpy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
from sklearn.isotonic import isotonic_regression

SAMPLES, FEATURES = 100, 24
STRENGTH = 0.1
WEIGHTS = np.linspace(0.2, 3.0, FEATURES)
SORTED = np.linspace(1.5, 0.5, FEATURES)
GROUPS = np.repeat(np.arange(FEATURES // 4), 4)
WIDTH, KNEE, RATIO = 0.8, STRENGTH, 3.7  # the classical SCAD: its knee is its strength

Array = Any


# Losses: the mean over samples of what Keras' losses give, and the gradient in W.


def squared(x: Array, y: Array, w: Array) -> tuple[float, Array]:
    """`½·Σ over outputs`."""
    residual = x @ w - y
    return 0.5 * np.sum(residual**2) / len(x), x.T @ residual / len(x)


def logistic(x: Array, y: Array, w: Array) -> tuple[float, Array]:
    """Binary cross-entropy from logits."""
    z = x @ w
    value = np.mean(np.logaddexp(0, z) - y * z)
    return value, x.T @ (scipy.special.expit(z) - y) / len(x)


def multinomial(x: Array, y: Array, w: Array) -> tuple[float, Array]:
    """Cross-entropy from logits, y one-hot."""
    z = x @ w
    value = np.mean(scipy.special.logsumexp(z, axis=1) - np.sum(y * z, axis=1))
    return value, x.T @ (scipy.special.softmax(z, axis=1) - y) / len(x)


# Penalties: value and proximal map, each written from its textbook definition.


def soft(v: Array, t: Array) -> Array:
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


def grouped_soft(v: Array, t: float) -> Array:
    """The rows of a matrix of several columns; the groups of a single one."""
    if v.shape[1] > 1:
        norms = np.linalg.norm(v, axis=1, keepdims=True)
    else:
        norms = np.sqrt(np.bincount(GROUPS, v[:, 0] ** 2))[GROUPS, None]
    return v * np.maximum(1 - t / np.maximum(norms, 1e-300), 0)


def group_norms(w: Array) -> float:
    if w.shape[1] > 1:
        return float(np.linalg.norm(w, axis=1).sum())
    return float(np.sqrt(np.bincount(GROUPS, w[:, 0] ** 2)).sum())


def firm(v: Array, t: float) -> Array:
    """MCP, for t below the width."""
    a = np.abs(v)
    inner = np.maximum(a - t, 0) / (1 - t / WIDTH)
    return np.sign(v) * np.where(a <= WIDTH, inner, a)


def mcp_value(w: Array) -> float:
    a = np.minimum(np.abs(w), WIDTH)
    return float(np.sum(a - a**2 / (2 * WIDTH)))


def scad(v: Array, t: float) -> Array:
    """SCAD with the knee apart from the strength, for t below (ratio - 1)·knee."""
    a, slope = np.abs(v), 1 / ((RATIO - 1) * KNEE)
    middle = (a - t * slope * RATIO * KNEE) / (1 - t * slope)
    near = np.maximum(a - t, 0)
    result = np.where(a <= KNEE + t, near, np.where(a <= RATIO * KNEE, middle, a))
    return np.sign(v) * result


def scad_value(w: Array) -> float:
    a, top = np.abs(w), RATIO * KNEE
    blend = KNEE + (2 * top * (a - KNEE) - a**2 + KNEE**2) / (2 * (RATIO - 1) * KNEE)
    flat = KNEE * (1 + RATIO) / 2
    return float(np.sum(np.where(a <= KNEE, a, np.where(a <= top, blend, flat))))


def nuclear(v: Array, t: float) -> Array:
    u, s, vt = np.linalg.svd(v, full_matrices=False)
    return (u * np.maximum(s - t, 0)) @ vt


def total_variation(v: Array, t: float) -> Array:
    """By the dual: a least-squares problem in a box, solved by active sets."""
    differences = np.diff(np.eye(len(v)), axis=0)
    box = scipy.optimize.lsq_linear(
        differences.T, v[:, 0], (-t, t), method="bvls", tol=1e-15
    )
    return v - differences.T @ box.x[:, None]


def slope(v: Array, t: float) -> Array:
    order = np.argsort(-np.abs(v[:, 0]))
    ranked = isotonic_regression(
        np.abs(v[order, 0]) - t * SORTED, increasing=False, y_min=0
    )
    result = np.empty_like(ranked)
    result[order] = ranked
    return np.sign(v) * result[:, None]


@dataclass(frozen=True)
class Problem:
    """Loss + penalty on a linear model without a bias, and where it starts."""

    name: str
    loss: Callable[[Array, Array, Array], tuple[float, Array]]
    value: Callable[[Array], float]
    """The penalty's value, strength included."""
    prox: Callable[[Array, float], Array]
    """Its proximal map for that step, strength included."""
    outputs: int = 1
    convex: bool = True
    data: tuple[Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _data(self.loss, self.outputs))

    def objective(self, w: Array) -> float:
        """Loss + penalty."""
        return float(self.loss(*self.data, w)[0] + self.value(w))

    @property
    def lipschitz(self) -> float:
        """A bound of the loss's curvature."""
        x, _ = self.data
        return float(np.linalg.eigvalsh(x.T @ x / len(x))[-1])

    @functools.cached_property
    def solution(self) -> Array:
        """The minimiser; for a non-convex penalty where descent from 0 ends."""
        return minimised(self)


def minimised(problem: Problem, steps: int = 50_000) -> Array:
    """FISTA with restarts where that is sure to converge, else plain descent."""
    step = 1 / problem.lipschitz
    w = z = np.zeros((FEATURES, problem.outputs))
    momentum = 1.0
    for _ in range(steps):
        new = problem.prox(z - step * problem.loss(*problem.data, z)[1], step)
        if np.abs(new - z).max() < 1e-15 * max(np.abs(new).max(), 1e-3):
            return new
        if not problem.convex or np.sum((z - new) * (new - w)) > 0:
            momentum, z = 1.0, new
        else:
            old, momentum = momentum, (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            z = new + (old - 1) / momentum * (new - w)
        w = new
    raise AssertionError(f"{problem.name}: no convergence in {steps} steps")


def _data(loss: Any, outputs: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(SAMPLES, FEATURES)) + 0.5 * rng.normal(size=(SAMPLES, 1))
    w = np.zeros((FEATURES, outputs))
    w[:4] = rng.normal(size=(4, 1)) * (1 + rng.normal(size=(1, outputs)))
    w[12:15] = 1.5
    scores = x @ w + 0.3 * rng.normal(size=(SAMPLES, outputs))
    if loss is squared:
        y = scores
    elif loss is logistic:
        y = (scores > 0).astype(float)
    else:
        y = np.eye(outputs)[scores.argmax(axis=1)]
    return tuple(a.astype("float32").astype("float64") for a in (x, y))


def _scaled(value: Callable[[Array], float], strength: float) -> Callable[..., float]:
    return lambda w: strength * value(w)


def _problem(
    name: str,
    value: Any,
    prox: Any,
    loss: Any = squared,
    s: float = STRENGTH,
    **more: Any,
) -> Problem:
    return Problem(
        name, loss, lambda w: s * value(w), lambda v, t: prox(v, t * s), **more
    )


def _l1(w: Array) -> float:
    return float(np.abs(w).sum())


def _tv(w: Array) -> float:
    return float(np.abs(np.diff(w, axis=0)).sum())


def _slope_value(w: Array) -> float:
    return float(np.sort(np.abs(w[:, 0]))[::-1] @ SORTED)


PROBLEMS = {
    problem.name: problem
    for problem in (
        _problem("lasso", _l1, soft),
        _problem(
            "elastic_net",
            lambda w: 0.5 * _l1(w) + 0.25 * np.sum(w**2),
            lambda v, t: soft(v, 0.5 * t) / (1 + 0.5 * t),
        ),
        _problem(
            "weighted_lasso",
            lambda w: float(WEIGHTS @ np.abs(w[:, 0])),
            lambda v, t: soft(v, t * WEIGHTS[:, None]),
        ),
        _problem(
            "non_negative_lasso",
            lambda w: _l1(w) if (w >= 0).all() else np.inf,
            lambda v, t: np.maximum(v - t, 0),
        ),
        _problem("l1_logistic", _l1, soft, logistic, 0.02),
        _problem("multinomial", _l1, soft, multinomial, 0.025, outputs=3),
        _problem("multitask", group_norms, grouped_soft, outputs=3),
        _problem("group_lasso", group_norms, grouped_soft, s=0.3),
        _problem(
            "sparse_group",
            lambda w: _l1(w) + group_norms(w),
            lambda v, t: grouped_soft(soft(v, t), t),
        ),
        _problem("mcp", mcp_value, firm, convex=False),
        _problem("scad", scad_value, scad, convex=False),
        _problem(
            "nuclear",
            lambda w: float(np.linalg.norm(w, "nuc")),
            nuclear,
            s=0.5,
            outputs=6,
        ),
        _problem("total_variation", _tv, total_variation),
        _problem(
            "fused_lasso",
            lambda w: _tv(w) + 0.5 * _l1(w),
            lambda v, t: soft(total_variation(v, t), 0.5 * t),
        ),
        _problem("slope", _slope_value, slope),
    )
}
