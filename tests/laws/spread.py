"""Laws of proximal maps with one t per entry, spread from 1 to 1e-12 and exactly 0.

Each map that ties entries together has a reference here, in float64 and by other means:
bisection, the pooling of neighbours, a path of exact fractions.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np
from strategies import generic, special

import keras_penalties as kp
from keras_penalties.penalties import Penalty
from laws.book import PRECISE, has_prox, law, prox

LEAST = 1e-12
"""The share of the largest t that an entry with t = 0 may count as having."""


def groups_of(p: Any, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The flat indices of each group or vector of a penalty."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    if getattr(p, "groups", None):
        return [np.array(group) for group in p.groups]
    if getattr(p, "block", None):
        tiles = [range(0, n, b) for n, b in zip(shape, p.block, strict=True)]
        found = []
        for corner in product(*tiles):
            sides = zip(corner, p.block, strict=True)
            found.append(flat[tuple(slice(a, a + b) for a, b in sides)].reshape(-1))
        return found
    if p.axis is None:
        return [flat.reshape(-1)]
    axes = [p.axis] if isinstance(p.axis, int) else p.axis
    ahead = np.moveaxis(flat, axes, range(len(axes)))
    return list(ahead.reshape(np.prod([shape[a] for a in axes]), -1))


def lines_of(p: Any, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The flat indices of each line along a penalty's axis."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    return list(np.moveaxis(flat, p.axis, -1).reshape(-1, shape[p.axis]))


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0."""
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high


def of_a_norm(p: Any, x: np.ndarray, t: np.ndarray, weight: float) -> np.ndarray:
    kink, bend = p.penalty.elastic
    x, t = x / (1 + bend * weight * t), weight * t / (1 + bend * weight * t)
    if kink == 0 or not np.any(x):
        return x
    size = np.sqrt(np.sum(x**2))
    r = root(lambda r: np.sum((x / (r + kink * t)) ** 2) - 1, 1e-300, size)
    return x * r / (r + kink * t) if r > 1e-290 else 0 * x


def of_a_largest(p: Any, x: np.ndarray, t: np.ndarray, weight: float) -> np.ndarray:
    total = p.penalty.elastic[0] * weight
    above = lambda r: np.sum(np.maximum(np.abs(x) - r, 0) / t) - total  # noqa: E731
    return x if not np.any(x) else np.clip(x, *np.array([-1, 1]) * bound_of(above, x))


def bound_of(above: Callable[[float], float], x: np.ndarray) -> float:
    return 0.0 if above(0.0) <= 0 else root(above, 0.0, np.max(np.abs(x)))


def grouped(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    found, groups = x.reshape(-1).copy(), groups_of(p, x.shape)
    given = {None: [1.0] * len(groups), "sqrt_size": [len(g) ** 0.5 for g in groups]}
    weights = p.weights if isinstance(p.weights, list) else given[p.weights]
    t = np.maximum(t, LEAST * np.max(t))
    solve = of_a_norm if p.norm == "l2" else of_a_largest
    for group, weight in zip(groups, weights, strict=True):
        found[group] = solve(p, found[group], t.reshape(-1)[group], weight)
    return found.reshape(x.shape)


def each(solve: Callable[..., np.ndarray], cut: Callable[..., Any]) -> Any:
    """A reference that solves for one vector after another."""

    def reference(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        found = x.reshape(-1).copy()
        for index in cut(p, x.shape):
            if np.any(own := t.reshape(-1)[index]):  # else they stay where they are
                own = np.maximum(own, LEAST * np.max(own))
                found[index] = solve(p, found[index], own)
        return found.reshape(x.shape)

    return reference


def exclusive(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    size = np.abs(x)
    total = root(lambda s: np.sum(np.maximum(size - t * s, 0)) - s, 0.0, np.sum(size))
    return np.sign(x) * np.maximum(size - t * total, 0)


def shares(total: float, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Every set of entries that may stay above 0 gives a bound, the best is exact."""
    order = np.argsort(-x / t)
    sums = np.cumsum(x[order].astype(np.longdouble)) - total
    return np.maximum(x - t * np.max(sums / np.cumsum(t[order])), 0).astype("float64")


def simplex(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    return shares(p.total, x, t)


def l1_ball(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    inside = np.sum(np.abs(x)) <= p.radius
    return x if inside else np.sign(x) * shares(p.radius, np.abs(x), t)


def l2_ball(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    def beyond(power: float) -> float:
        return float(np.sum((x / (1 + 10.0**power * t)) ** 2)) - p.radius**2

    inside = np.sum(x**2) <= p.radius**2
    return x if inside else x / (1 + 10.0 ** root(beyond, -30.0, 30.0) * t)


def pooled(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    sign, blocks = -1.0 if p.decreasing else 1.0, []
    for value, weight in zip(sign * x, 1 / t, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (b, w, m), (a, v, n) = blocks.pop(), blocks.pop()
            blocks.append(((a * v + b * w) / (v + w), v + w, n + m))
    return sign * np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def variation(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """As the strength grows from 0 to 1, neighbours meet and never part again."""
    blocks = [[Fraction(v), 1 / Fraction(s), 1] for v, s in zip(x, t, strict=True)]
    left = Fraction(1)
    while left > 0:
        merged = [blocks[0]]
        for value, weight, size in blocks[1:]:
            if merged[-1][0] == value:
                merged[-1] = [value, merged[-1][1] + weight, merged[-1][2] + size]
            else:
                merged.append([value, weight, size])
        ups = [1 if b[0] > a[0] else -1 for a, b in pairwise(merged)]
        pulls = [b - a for a, b in pairwise([0, *ups, 0])]
        rates = [pull / block[1] for pull, block in zip(pulls, merged, strict=True)]
        step, blocks = left, merged
        for (a, r), (b, s) in pairwise(zip([m[0] for m in merged], rates, strict=True)):
            step = min(step, (b - a) / (r - s)) if (b - a) * (r - s) > 0 else step
        for block, rate in zip(blocks, rates, strict=True):
            block[0] += step * rate
        left -= step
    return np.repeat([float(b[0]) for b in blocks], [b[2] for b in blocks])


def anchored(p: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    pull = t * (1.0 if p.weights is None else np.array(p.weights))
    return (x + pull * np.array(p.values)) / (1 + pull)


REFERENCES: dict[type, Callable[..., np.ndarray]] = {
    kp.penalties.Grouped: grouped,
    kp.penalties.ExclusiveLasso: each(exclusive, groups_of),
    kp.penalties.Simplex: each(simplex, groups_of),
    kp.penalties.L1Ball: each(l1_ball, groups_of),
    kp.penalties.L2Ball: each(l2_ball, groups_of),
    kp.penalties.Monotone: each(pooled, lines_of),
    kp.penalties.TotalVariation: each(variation, lines_of),
    kp.penalties.ToReference: anchored,
}


def entry_by_entry(p: Penalty, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """For sums over entries: the map of each entry alone, with its own t."""
    moved = [prox(p, np.array([v]), s)[0] for v, s in zip(x.flat, t.flat, strict=True)]
    return np.reshape(moved, x.shape)


def expected(p: Penalty, x: np.ndarray, t: np.ndarray) -> np.ndarray | None:
    kinds = [kind for kind in REFERENCES if isinstance(p, kind)]
    if kinds:
        return REFERENCES[kinds[0]](p, x, t)
    apart = all(
        isinstance(q, kp.penalties.Separable | kp.penalties.Box) for q in p.parts()
    )
    if not apart and len(p.parts()) > 1:
        return None  # its parts have references, and cvxpy checks how they join
    assert apart, "a map with one t per entry needs a reference in tests/laws/spread.py"
    return entry_by_entry(p, x, t)


@law(lambda p: has_prox(p) and p.per_entry)
def prox_is_right_for_any_spread_of_steps(p: Penalty) -> None:
    rng = np.random.default_rng(7)
    bound = 1e-9 if PRECISE else 5e-6
    for x in generic(p) + special(p)[2:4]:
        for power, dead in ((-4, False), (-12, False), (-12, True)):
            share = 10.0 ** rng.uniform(power, 0, x.shape)
            share.reshape(-1)[rng.integers(x.size)] = 1.0
            for largest in (0.3, 30.0):
                t = largest * np.float32(share).astype("float64")
                x = np.float32(x).astype("float64")
                if dead:
                    t = np.where(rng.random(x.shape) < 0.4, 0.0, t)
                if (wanted := expected(p, x, t)) is None:
                    continue
                room = bound * (1.0 + np.max(np.abs(x)))
                np.testing.assert_allclose(prox(p, x, t), wanted, rtol=0, atol=room)
