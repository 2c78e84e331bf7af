"""Laws of the proximal map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from strategies import generic, special

from keras_penalties.penalties import Penalty, Separable
from laws.book import (
    PRECISE,
    ROUNDING,
    STEPS,
    entries,
    equal,
    has_prox,
    is_separable,
    law,
    prox,
    tensor,
    value,
)


@law(lambda p: not p.has_prox)
def an_unknown_prox_raises(p: Penalty) -> None:
    with pytest.raises(NotImplementedError, match="proximal"):
        p.prox(tensor(generic(p)[0]), 0.5)


@law(has_prox)
def prox_without_a_step_stays(p: Penalty) -> None:
    for x in generic(p) + special(p):
        equal(prox(p, x, 0.0), x)


def rivals(p: Penalty, u: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    """Points near the prox `u` of `x` and far from it, on the way to x and to 0."""
    rng = np.random.default_rng(4)
    found = [s * x for s in np.linspace(0.0, 1.0, 6)]
    found += [u * (1 + s) for s in (-1e-2, -1e-3, 1e-3, 1e-2)]
    found += [u + s * (x - u) for s in (-1e-1, -1e-2, 1e-2, 1e-1)]
    for scale in (1e-3, 1e-2, 1e-1, 1.0):
        found += [u + scale * rng.standard_normal(x.shape) for _ in range(3)]
    found += [np.where(rng.random(x.shape) < 0.3, 0.0, u) for _ in range(3)]
    return [np.clip(y, *p.domain) for y in found]


def assert_minimises(p: Penalty, u: np.ndarray, x: np.ndarray, t: Any) -> None:
    """Of `value(u) + Σ(u - x)²/2t`, which is also right for one t in each entry."""
    bound = 1e-9 if PRECISE else 1e-5
    others = np.stack(rivals(p, u, x))
    axes = tuple(range(1, others.ndim))
    at_u, at_others = value(p, u), np.array([value(p, y) for y in others])
    best = at_u + np.sum((u - x) ** 2 / (2 * t))
    costs = at_others + np.sum((others - x) ** 2 / (2 * t), axis=axes)
    assert np.isfinite(best)
    assert np.all(best <= costs + bound * (1.0 + abs(best)))
    if p.convex:  # then (x - u)/t is a subgradient at u, which sees finer faults
        rises = (x - u) / t * (others - u)
        room = bound * (1.0 + np.abs(at_others) + np.sum(np.abs(rises), axis=axes))
        assert np.all(at_others >= at_u + np.sum(rises, axis=axes) - room)


@law(has_prox)
def prox_minimises(p: Penalty) -> None:
    for x in generic(p):
        for t in STEPS:
            assert_minimises(p, prox(p, x, t), x, t)


@law(lambda p: p.has_prox and p.per_entry)
def prox_minimises_with_one_step_for_each_entry(p: Penalty) -> None:
    rng = np.random.default_rng(5)
    for x in generic(p):
        equal(prox(p, x, np.full(x.shape, 0.3)), prox(p, x, 0.3))
        t = np.exp(1.5 * rng.standard_normal(x.shape) - 0.5)
        assert_minimises(p, prox(p, x, t), x, t)


@law(lambda p: p.has_prox and is_separable(p))
def prox_beats_a_grid(p: Separable) -> None:
    """The global minimiser over a dense grid, also beyond the convex range."""
    grid = np.linspace(-9.0, 9.0, 3601)
    x = np.concatenate([np.linspace(-8.0, 8.0, 65), generic(p)[0].reshape(-1)])
    t = np.array([1e-6, 1e-3, 0.1, 0.5, 1.0, 1.5, 2.5, 4.0, 7.0])[:, None]
    u = prox(p, np.broadcast_to(x, t.shape[:1] + x.shape), t)
    for row, step in zip(u, t[:, 0], strict=True):
        equal(row, prox(p, x, step))

    def objective(u: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return t * entries(p, u) + 0.5 * (u - x) ** 2

    best = objective(u, x, t)
    room = (1e-12 if PRECISE else 2e-6) * (1.0 + np.abs(best))
    far = t[..., None] * entries(p, grid) + 0.5 * (grid - x[:, None]) ** 2
    assert np.all(best <= np.min(far, axis=-1) + room)
    for nudge in (1e-5, 1e-4, 1e-3) if PRECISE else (3e-3,):
        assert np.all(best <= objective(u + nudge, x, t) + room)
        assert np.all(best <= objective(u - nudge, x, t) + room)


@law(lambda p: p.has_prox and p.even)
def prox_of_an_even_value_is_odd(p: Penalty) -> None:
    for x in generic(p):
        equal(prox(p, -x, 0.5), -prox(p, x, 0.5), 100 * ROUNDING)


@law(lambda p: p.has_prox and np.isfinite(p.concavity))
def prox_is_firmly_non_expansive(p: Penalty) -> None:
    """For a convex value; else as near to it as the concavity lets it be."""
    steps = STEPS if p.concavity == 0 else (0.1 / p.concavity, 0.9 / p.concavity)
    for t in steps:
        for x, y in zip(generic(p), generic(p, seed=1), strict=True):
            for y_ in (y, x + 0.1 * y, 0 * x):
                moved = prox(p, x, t) - prox(p, y_, t)
                bound = np.sum(moved * (x - y_)) + ROUNDING
                assert (1 - t * p.concavity) * np.sum(moved**2) <= bound
