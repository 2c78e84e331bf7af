"""The formulas of penalties, proximal maps and strengths, written a second time.

They come from the docstrings and the sources that these name, not from the code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from campaign.arrays import Array, absolute, mean, positive, sign, xp
from campaign.describe import Penalty, Strength

STATISTICS = ("kl_sparsity", "decorrelation", "variance_covariance")
"""The penalties that a host does not divide by the batch size."""

# ------------------------------------------------------------------- penalties


def value(penalty: Penalty, x: Array, mask: np.ndarray | None = None) -> Array:
    """The penalty on `x` without its strength; of the real entries, under a mask."""
    if penalty.kind in STATISTICS:
        return _statistic(penalty, _rows(x, mask))
    if mask is not None:
        spread = np.reshape(mask, mask.shape + (1,) * (len(x.shape) - mask.ndim))
        x = x * xp.array(np.broadcast_to(spread, x.shape))
    return _extensive(penalty, x)


def _rows(x: Array, mask: np.ndarray | None) -> Array:
    rows = xp.reshape(x, (-1, x.shape[-1]))
    if mask is None:
        return rows
    return xp.take(rows, np.flatnonzero(mask.reshape(-1)))


def _extensive(penalty: Penalty, x: Array) -> Array:
    args = penalty.args
    if penalty.kind == "l1":
        return xp.sum(absolute(x))
    if penalty.kind == "l2":
        return xp.sum(x * x)
    if penalty.kind == "elastic_net":
        share = args["l1_ratio"]
        return share * xp.sum(absolute(x)) + 0.5 * (1 - share) * xp.sum(x * x)
    if penalty.kind == "huber_l1":
        width = args["width"]
        near = xp.where(absolute(x) <= width, 1.0, 0.0)
        line = absolute(x) - width / 2
        return xp.sum(near * x * x / (2 * width) + (1.0 - near) * line)
    if penalty.kind == "non_negative":
        return xp.sum(positive(-x))
    if penalty.kind == "grouped":
        return xp.sum(_norms(x, args["axis"]))
    if penalty.kind == "hoyer":
        total = xp.sum(absolute(x))
        return total * total / xp.sum(x * x)
    raise KeyError(penalty.kind)


def _norms(x: Array, axis: int) -> Array:
    """The norm of each group along an axis, with the slope 0 at 0."""
    axes = tuple(a for a in range(len(x.shape)) if a != axis % len(x.shape))
    square = xp.sum(x * x, axes, True)
    some = xp.stop(square) > 0
    return xp.where(some, xp.sqrt(xp.where(some, square, 1.0 + 0.0 * square)), 0.0)


def _statistic(penalty: Penalty, rows: Array) -> Array:
    args, count = penalty.args, rows.shape[0]
    if count == 0:
        return 0.0 * xp.sum(rows)
    average = mean(rows, 0)
    if penalty.kind == "kl_sparsity":
        rate = args["rate"]
        part = rate * xp.log(rate / average)
        return xp.sum(part + (1 - rate) * xp.log((1 - rate) / (1 - average)))
    centred = rows - average
    covariance = xp.einsum("ni,nj->ij", centred, centred) / float(count)
    width = int(rows.shape[1])
    diagonal = xp.sum(covariance * xp.array(np.eye(width)), 1)
    off = xp.sum((covariance * xp.array(1 - np.eye(width))) ** 2)
    if penalty.kind == "decorrelation":
        return 0.5 * off
    missing = positive(args["deviation"] - xp.sqrt(diagonal + 1e-4))
    return mean(missing) + args["covariance"] * off / width


# --------------------------------------------------------------- proximal maps


def prox(penalties: tuple[Penalty, ...], x: Array, ts: list[Any]) -> Array:
    """The minimiser over u of Σ t·value(u) + ½‖u − x‖², of the sums that are drawn."""
    soft, shrink = 0.0, 1.0
    for penalty, t in zip(penalties, ts, strict=True):
        if penalty.kind == "l1":
            soft = soft + t
        elif penalty.kind == "l2":
            shrink = shrink + 2 * t
        elif penalty.kind == "elastic_net":
            soft = soft + t * penalty.args["l1_ratio"]
            shrink = shrink + t * (1 - penalty.args["l1_ratio"])
        elif penalty.kind == "non_negative":
            x = xp.where(x < 0, -positive(-x - t), x)
        elif penalty.kind == "grouped":
            norms = _norms(x, penalty.args["axis"])
            kept = positive(norms - t)
            x = x * kept / xp.where(norms > 0, norms, 1.0)
        else:
            raise KeyError(penalty.kind)
    return sign(x) * positive(absolute(x) - soft) / shrink


# ------------------------------------------------------------------- strengths

MOVES_BY_STEP = ("linear", "cosine", "cyclical", "exponential", "piecewise")


def initial(strength: Strength) -> float:
    """The number that a host keeps, before the first step."""
    if strength.kind == "constant":
        return strength.args["value"]
    if strength.kind == "target":
        return strength.args["initial"]
    if strength.kind == "learned" and strength.args["initial"] == "auto":
        return -math.inf
    return 0.0


def at_step(strength: Strength, step: int, training: bool) -> float:
    """The strength that the count of steps alone decides."""
    a = strength.args
    if strength.kind == "lazy":
        if not training:
            return a["strength"]
        return a["strength"] * a["every"] * (step % a["every"] == 0)
    if strength.kind in ("linear", "cosine"):
        p = min(max((step - a["begin"]) / a["steps"], 0.0), 1.0)
        p = p if strength.kind == "linear" else (1 - math.cos(math.pi * p)) / 2
        return a["start"] + (a["end"] - a["start"]) * p
    if strength.kind == "cyclical":
        p = min((step % a["period"]) / a["period"] / a["ratio"], 1.0)
        return a["start"] + (a["end"] - a["start"]) * p
    if strength.kind == "exponential":  # Keras' ExponentialDecay
        return a["start"] * a["decay"] ** (step / a["steps"])
    if strength.kind == "piecewise":  # Keras' PiecewiseConstantDecay
        return a["values"][sum(step > b for b in a["boundaries"])]
    raise KeyError(strength.kind)


def target_error(strength: Strength, value: Array, xs: list[Array]) -> Array:
    """By how much the measure exceeds what it is held at."""
    a = strength.args
    if a["of"] == "value":
        return xp.stop(value) - a["value"]
    entries = xp.concat([xp.reshape(xp.stop(x), (-1,)) for x in xs], 0)
    if a["of"] == "density":
        entries = xp.where(absolute(entries) > a["tolerance"], 1.0, 0.0)
    return mean(entries) - a["value"]


def target_moved(strength: Strength, multiplier: Array, change: Array) -> Array:
    """The multiplier after a change."""
    a = strength.args
    if a["relative"]:
        share = change / abs(a["value"])
        share = xp.where(share > 1, 1.0, xp.where(share < -1, -1.0, share))
        return multiplier * xp.exp(share)
    moved = multiplier + change
    if a["kind"] == "<=":
        return positive(moved)
    return -positive(-moved) if a["kind"] == ">=" else moved
