"""Which terms of `Proximal` make zeros, and from which strength on all are zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from keras_penalties import checks
from keras_penalties.optimizers.proximal import Proximal
from keras_penalties.penalties.base import Penalty
from keras_penalties.terms import name_in, penalty_optimizers

Array = npt.NDArray[Any]
FAR = 2.0**40
"""A strength so many times the largest entry of the gradient counts as infinite."""


@dataclass(frozen=True)
class Zeroing:
    """A term of `Proximal` whose strength can make its whole weight zero."""

    name: str
    """The term's, as `terms(model)` has it."""
    owner: Proximal
    weight: Any
    penalty: Penalty
    """The penalty on the weight, of which the term is one part."""
    place: int
    """Where the term stands among the parts."""
    strengths: tuple[float, ...]
    """The present strengths of all parts."""

    def zero(self, gradient: Array, strength: float) -> bool:
        """Whether the proximal map keeps the weight at zero against this gradient.

        For a convex penalty the answer is the same for every step. A concave one gets
        a step for which its map does not jump: zero is then a local minimum.
        """
        given = list(self.strengths)
        given[self.place] = strength
        parts = zip(given, self.penalty.parts(), strict=True)
        bend = sum(s * part.concavity for s, part in parts if s)
        step = 1.0 / max(2.0 * bend, float(np.max(np.abs(gradient))))
        x = ops.convert_to_tensor(-step * gradient, "float32")
        ts = [ops.convert_to_tensor(step * s, "float32") for s in given]
        return not np.any(ops.convert_to_numpy(self.penalty.prox_parts(x, ts)))

    def smallest(self, gradient: Array) -> float | None:
        """The smallest strength that keeps zero, by bisection; None if none does."""
        high = largest = float(np.max(np.abs(gradient), initial=0.0))
        if not largest or self.zero(gradient, 0.0):
            return 0.0
        while not self.zero(gradient, high):
            high *= 2.0
            if high > FAR * largest:
                return None
        low = 0.5 * high
        while low > largest / FAR and self.zero(gradient, low):
            low, high = 0.5 * low, low
        while high - low > 1e-7 * high:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.zero(gradient, middle) else (middle, high)
        return high


def zeroing_terms(model: Any) -> list[Zeroing]:
    """Every term of the model's `Proximal` that makes zeros by itself.

    Raises:
        ValueError: if `model` is not built, or no rule of a `Proximal` makes zeros.
    """
    if not getattr(model, "built", False):
        checks.refuse("model", "a built model: call it, fit it or `build` it", model)
    found = [
        term
        for optimizer in penalty_optimizers(model)
        if isinstance(optimizer, Proximal)
        for term in _terms(model, optimizer)
    ]
    if not found:
        checks.refuse(
            "model",
            "a model compiled with `keras_penalties.optimizers.Proximal`, with a rule "
            "that a finite strength makes zero, such as L1 or a group lasso",
            model,
        )
    return found


def _terms(model: Any, optimizer: Proximal) -> list[Zeroing]:
    found = []
    for weight, assigned in optimizer.assigned(model.trainable_variables):
        penalty = optimizer.anchors.together(
            assigned.penalty, assigned.terms, ops.convert_to_tensor(weight), False
        )
        strengths = [_number(optimizer.present_strength(t)) for t in assigned.terms]
        for place, term in enumerate(assigned.terms):
            name = name_in(model, term)
            whole = Zeroing(name, optimizer, weight, penalty, place, tuple(strengths))
            if makes_zeros(whole):
                found.append(whole)
    return found


def makes_zeros(rule: Zeroing) -> bool:
    """Whether the term alone makes a weight zero by a finite strength.

    L2 does not, nor a penalty on differences, nor a constraint. `Lp` has an infinite
    slope at zero, and so no smallest strength that keeps zero.
    """
    part = rule.penalty.parts()[rule.place]
    if part.indicator or not part.concavity < math.inf:
        return False
    alone = Zeroing(rule.name, rule.owner, rule.weight, part, 0, (0.0,))
    gradient = np.random.default_rng(0).normal(size=tuple(rule.weight.shape))
    return alone.zero(gradient, FAR)


def _number(x: Any) -> float:
    return float(ops.convert_to_numpy(x))
