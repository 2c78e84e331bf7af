"""Penalties on neighbours, and on the order of magnitudes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import absolute, positive_part
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.isotonic import piecewise
from keras_penalties.penalties.layouts import listed
from keras_penalties.penalties.refusals import one_step, refuse_part
from keras_penalties.penalties.taut_string import taut_string
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor

SMALLEST = 1e-12
"""The share of the largest t that an entry with a smaller t, or 0, counts as having."""


@register
class TotalVariation(Penalty):
    """Differences of neighbours, which favours flat pieces: `Σ|xᵢ₊₁ − xᵢ|`.

    Along one axis, or the sum over several (the anisotropic form). With an L1 beside it
    along one axis it is the fused lasso, `TotalVariation(a) + L1(b)`. The slope between
    equal neighbours is 0. The proximal map is exact, by the taut string, and known for
    one axis only.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        axis: Along which axis neighbours lie, or a list of axes. Default 0: between the
            inputs of a dense kernel.

    Shapes: any that has the axes of `axis`, from rank 1 on.

    Example:
        >>> import keras_penalties as kp
        >>> float(kp.penalties.TotalVariation(0.5)([1.0, 1.0, 4.0, 2.0]))
        2.5

    Raises:
        ValueError: if an axis is no whole number, or is named twice.

    Source: Rudin, Osher and Fatemi, "Nonlinear Total Variation Based Noise Removal
    Algorithms", 1992; Tibshirani et al., "Sparsity and Smoothness via the Fused Lasso",
    2005; Davies and Kovac, "Local Extremes, Runs, Strings and Multiresolution", 2001.
    """

    per_entry = True
    rank = 1
    joint = "order"

    def __init__(
        self, strength: StrengthLike = 0.01, axis: int | Sequence[int] = 0
    ) -> None:
        super().__init__(strength)
        self.axis = checks.axes("axis", axis)

    @property
    def has_prox(self) -> bool:
        """Along one axis."""
        return isinstance(self.axis, int)

    def compute_value(self, x: Tensor) -> Tensor:
        """The sum of absolute differences along each axis."""
        steps = [ops.moveaxis(x, axis, 0) for axis in listed(self.axis)]
        return sum(ops.sum(absolute(s[1:] - s[:-1])) for s in steps)

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """Refused along an axis of the mask: neighbours would be missing."""
        rank = len(x.shape)
        along = {a % rank for a in listed(self.axis)}
        if any(mask.shape[a] != 1 for a in along):
            refuse_part(self)
        return self.compute_value(x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The slope of the taut string in a tube of radius t."""
        if not isinstance(self.axis, int):
            return super().compute_prox(x, t)
        y = ops.moveaxis(x, self.axis, -1)
        largest = ops.max(t)
        radius = ops.where(largest > 0, largest, ops.ones_like(largest))
        each, weights = largest, None
        if math.prod(t.shape) > 1:  # one t for each entry is a weight 1/t for each
            each = ops.moveaxis(ops.broadcast_to(t, x.shape), self.axis, -1)
            radius = SMALLEST * radius
            weights = radius / ops.maximum(each, radius)
        found = taut_string(y, -radius, radius, weights)
        return ops.moveaxis(ops.where(each > 0, found, y), -1, self.axis)

    @classmethod
    def examples(cls) -> list[Self]:
        """Along one axis, and along two."""
        return [cls(0.5), cls(0.5, axis=-1), cls(0.5, axis=[0, 1])]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Of enough axes."""
        fewest = 1 if isinstance(self.axis, int) else 2
        return [s for s in super().example_shapes() if len(s) >= fewest]


@register
class SortedL1(Penalty):
    """L1 with the largest weights on the largest entries: `Σ weightsᵢ·|x|₍ᵢ₎`.

    |x|₍₁₎ ≥ |x|₍₂₎ ≥ … are the magnitudes of all entries. Entries of about the same
    magnitude come out equal: they form clusters. Entries beyond the end of `weights`
    have weight 0, so `[1.0]` is the largest magnitude (L∞) and `[1.0, 1.0]` the sum of
    the two largest. Where magnitudes tie, each has the slope of their mean weight.

    Args:
        strength: The multiplier, 0 or more. Default 0.01.
        weights: The weights in decreasing order, 0 or more, at most one per entry.
            `SortedL1.oscar` makes those of OSCAR. Default `[1.0]`, the L∞ norm.

    Shapes: any; all entries are ranked together.

    Example:
        >>> import keras_penalties as kp
        >>> slope = kp.penalties.SortedL1(1.0, weights=[3.0, 2.0, 1.0])
        >>> float(slope([0.5, -4.0, 1.0]))
        14.5

    Raises:
        ValueError: if `weights` increase or are negative, or outnumber the entries.

    Source: Bogdan et al., "SLOPE - Adaptive Variable Selection via Convex
    Optimization", 2015; Bondell and Reich, "Simultaneous Regression Shrinkage, Variable
    Selection, and Supervised Clustering of Predictors with OSCAR", 2008.
    """

    ignores_zeros = True

    def __init__(
        self, strength: StrengthLike = 0.01, weights: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__(strength)
        self.weights: list[float] = checks.floats("weights", weights, rank=1, low=0.0)
        if not self.weights or sorted(self.weights, reverse=True) != self.weights:
            checks.refuse("weights", "at least one, in decreasing order", weights)

    @classmethod
    def oscar(cls, strength: StrengthLike, size: int, pairs: float) -> Self:
        """OSCAR for `size` entries: `Σ|x| + pairs·Σᵢ﹤ⱼ max(|xᵢ|, |xⱼ|)`."""
        checks.integer("size", size)
        checks.non_negative("pairs", pairs)
        return cls(strength, [1.0 + pairs * (size - 1 - i) for i in range(size)])

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ weightsᵢ·|x|₍ᵢ₎`."""
        magnitudes = ops.reshape(absolute(x), (-1,))
        weights = self._padded(magnitudes)
        order = ops.argsort(-ops.stop_gradient(magnitudes))
        ranked = ops.take(magnitudes, order)
        return ops.sum(_shared(weights, ops.stop_gradient(ranked)) * ranked)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The nearest decreasing sequence to the ranked magnitudes less t·weights."""
        t, flat = one_step(self, t), ops.reshape(x, (-1,))
        order = ops.argsort(-ops.absolute(flat))
        lowered = ops.take(ops.absolute(flat), order) - t * self._padded(flat)
        ranked = positive_part(taut_string(lowered, 0.0, np.inf))
        magnitudes = ops.take(ranked, ops.argsort(order))
        return ops.reshape(ops.sign(flat) * magnitudes, x.shape)

    def _padded(self, flat: Tensor) -> Tensor:
        size, count = flat.shape[0], len(self.weights)
        if count > size:
            checks.refuse("weights", f"at most {size}, one for each entry", count)
        padded = np.concatenate([self.weights, np.zeros(size - count)])
        return ops.cast(ops.convert_to_tensor(padded), flat.dtype)

    @classmethod
    def examples(cls) -> list[Self]:
        """The largest magnitude, a few weights, and OSCAR."""
        return [cls(0.5), cls(0.5, [2.0, 1.0, 0.5]), cls.oscar(0.5, 6, 0.25)]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Of as many entries as there are weights, or more."""
        return [s for s in super().example_shapes() if np.prod(s) >= len(self.weights)]


def _shared(weights: Tensor, ranked: Tensor) -> Tensor:
    """The weights, those of equal magnitudes replaced by their mean."""
    first = ops.append(True, ranked[1:] != ranked[:-1])
    pieces = ops.cumsum(ops.cast(first, "int32")) - 1
    total = piecewise(ops.segment_sum, weights, pieces)
    return total / piecewise(ops.segment_sum, ops.ones_like(weights), pieces)
