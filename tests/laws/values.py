"""Laws of the value, its strength and its gradient."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from strategies import generic, inside, special

from keras_penalties import autodiff
from keras_penalties.penalties import Penalty, Separable
from laws.book import (
    PRECISE,
    ROUNDING,
    array,
    by_gradient,
    entries,
    equal,
    is_separable,
    law,
    prox,
    slope,
    tensor,
    value,
)


@law(lambda p: by_gradient(p) and p.statistic is None)
def strength_multiplies_the_value(p: Penalty) -> None:
    for x in generic(p):
        equal(float(array(p(tensor(x)))), p.strength * value(p, x))
        equal(float(array((3 * p)(tensor(x)))), 3 * p.strength * value(p, x))


@law(lambda p: p.parts() == [p] and by_gradient(p))
def strength_changes_nothing_else(p: Penalty) -> None:
    stronger = p.with_strength(7.0)
    assert stronger.strength == 7.0
    assert stronger != p
    for x in generic(p):
        equal(value(stronger, x), value(p, x))
        equal(slope(stronger, x), slope(p, x))
        if p.has_prox:
            equal(prox(stronger, x, 0.5), prox(p, x, 0.5))


@law(lambda p: p.parts() == [p] and by_gradient(p))
def a_bad_strength_is_refused(p: Penalty) -> None:
    for bad in (-1.0, float("nan"), float("inf"), "1", None):
        with pytest.raises(ValueError, match="strength"):
            p.with_strength(bad)
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    scheduled = p.with_strength(ramp)
    assert scheduled == type(p).from_config(
        json.loads(json.dumps(scheduled.get_config()))
    )
    refused = "step count" if p.statistic is None else "ActivityPenalty"
    with pytest.raises(ValueError, match=refused):
        scheduled(tensor(generic(p)[0]))


@law()
def the_value_is_one_number(p: Penalty) -> None:
    for x in generic(p):
        assert p.value(tensor(x)).shape == ()


@law()
def no_entries_cost_nothing(p: Penalty) -> None:
    """An empty batch, or a weight of size 0."""
    for x in generic(p):
        nothing = tensor(x[:0])
        assert array(p.value(nothing)) == 0
        assert tuple(autodiff.gradient(p.value, nothing).shape) == nothing.shape
        if p.has_prox:
            assert tuple(p.prox(nothing, 0.5).shape) == nothing.shape


@law(is_separable)
def a_separable_value_is_a_sum_over_entries(p: Separable) -> None:
    x, y = generic(p)[0], generic(p, seed=1)[0]
    equal(value(p, x), np.sum(entries(p, x)))
    equal(value(p, np.concatenate([x, y])), value(p, x) + value(p, y))
    equal(entries(p, x[::-1]), entries(p, x)[::-1])
    equal(entries(p, np.zeros(1)), np.zeros(1))


@law(lambda p: p.statistic is not None)
def a_statistic_is_the_same_for_the_batch_repeated(p: Penalty) -> None:
    for x in generic(p):
        if len(x.shape) < 2:
            continue
        equal(value(p, np.concatenate([x, x])), value(p, x))
        if p.statistic == "mean":
            axes = tuple(range(x.ndim - 1))
            equal(value(p, np.mean(x, axis=axes, keepdims=True)), value(p, x))


@law(lambda p: p.even)
def an_even_value_has_no_sign(p: Penalty) -> None:
    for x in generic(p):
        equal(value(p, -x), value(p, x))


@law(by_gradient)
def the_gradient_is_the_secant_limit(p: Penalty) -> None:
    """The slope lies between the secants on both sides, also over a kink."""
    h, bound = (1e-6, 1e-6) if PRECISE else (1e-2, 3e-3)
    rng = np.random.default_rng(3)
    for x in generic(p):
        if p.domain != (-np.inf, np.inf):
            x = inside(p, 0.5 * x)
        gradient, middle = slope(p, x), value(p, x)
        for _ in range(3):
            d = rng.standard_normal(x.shape)
            secants = [(value(p, x + s * h * d) - middle) / (s * h) for s in (-1, 1)]
            room = bound * (1.0 + np.max(np.abs(secants)) + abs(middle))
            between = min(secants) - room, max(secants) + room
            assert between[0] <= np.sum(gradient * d) <= between[1]


@law()
def the_gradient_is_finite_everywhere(p: Penalty) -> None:
    for x in special(p):
        assert np.all(np.isfinite(slope(p, x))), x


@law(lambda p: p.even)
def the_gradient_at_zero_is_zero(p: Penalty) -> None:
    for x in generic(p):
        assert np.all(slope(p, 0 * x) == 0)


@law(is_separable)
def the_gradient_at_a_kink_is_the_smallest(p: Separable) -> None:
    h, bound = (1e-7, 1e-4) if PRECISE else (1e-3, 2e-2)
    x = np.linspace(-4.0, 4.0, 81)
    left = (entries(p, x) - entries(p, x - h)) / h
    right = (entries(p, x + h) - entries(p, x)) / h
    smallest = np.clip(0.0, np.minimum(left, right), np.maximum(left, right))
    assert np.all(np.abs(slope(p, x) - smallest) <= bound * (1 + np.abs(smallest)))


@law(lambda p: is_separable(p) and np.isfinite(p.concavity))
def a_separable_concavity_is_the_least(p: Separable) -> None:
    """The second differences say how far the value bends down."""
    h = 1e-3 if PRECISE else 5e-2
    x = np.concatenate([[-h, h], np.linspace(-4.0, 4.0, 801)])
    bends = (entries(p, x + h) + entries(p, x - h) - 2 * entries(p, x)) / h**2
    most, room = max(-np.min(bends), 0.0), 1e-3
    assert most <= p.concavity * (1 + room) + room
    if PRECISE:  # a wider h sees less of a sharp bend
        assert most >= 0.95 * p.concavity - room


@law(lambda p: np.isfinite(p.concavity))
def the_gradient_supports_the_value(p: Penalty) -> None:
    """The subgradient inequality of `value(x) + ½·concavity·‖x‖²`, which is convex."""
    assert (p.concavity == 0.0) >= p.convex
    for xs in zip(generic(p), generic(p, seed=1), generic(p, seed=2), strict=True):
        points = [*xs, 0.1 * xs[0], *(x for x in special(p) if x.shape == xs[0].shape)]
        points = [np.clip(x, *p.domain) for x in points]
        lifts = [0.5 * p.concavity * np.sum(x**2) for x in points]
        values = [value(p, x) + lift for x, lift in zip(points, lifts, strict=True)]
        for x, at_x in zip(points, values, strict=True):
            if not np.isfinite(at_x):
                continue
            gradient = slope(p, x) + p.concavity * x
            for y, at_y in zip(points, values, strict=True):
                rise = np.sum(gradient * (y - x))
                assert at_y - at_x - rise >= -ROUNDING * (1 + abs(at_y) + abs(rise))
