"""Penalties on the norms of groups of entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import absolute, scaled
from keras_penalties.penalties.base import Penalty, Separable
from keras_penalties.penalties.concave import MCP
from keras_penalties.penalties.layouts import Layout, checked_groups, listed
from keras_penalties.penalties.ranked import onto_simplex
from keras_penalties.penalties.refusals import refuse_part
from keras_penalties.penalties.secular import root_over
from keras_penalties.penalties.separable import L1, ElasticNet
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.sums import length
from keras_penalties.typing import Tensor


@register(string_name=False)  # The name alone says neither penalty nor groups.
class Grouped(Penalty):
    """A penalty on the norm of each group: `Σ_g w_g·φ(‖x_g‖)`.

    It keeps or drops each group as a whole: `Grouped(L1(s), axis=0)` is the group lasso
    that selects the inputs of a dense kernel, `axis=-1` its units or the filters of a
    convolution; `L1(a) + Grouped(L1(b), axis=0)` is the sparse group lasso,
    `Grouped(MCP(s), ...)` group MCP, and `norm="max"` makes it L∞,1.

    The proximal map is exact. For one t it is that of φ, on the norm. For one t per
    entry, known for L1, L2 and ElasticNet, `Σ x²/(‖u‖ + t·w)² = 1` gives the norm of
    the result, to rounding: by three or four sums over the group where t varies little,
    else by Newton's method, within 20 steps. For other φ a t per entry raises, unless
    each group is one entry.

    Args:
        penalty: φ, an even penalty that is a sum over entries; it brings the strength.
        axis: The axis, or axes, that index the groups: the norm runs over the others.
            Default None, which with no `block` and no `groups` is one group of all.
        block: The shape of a block, of x's rank; each block is a group.
        groups: Lists of indices into the flattened x. Entries in no list are not
            penalised, an entry in two is refused.
        weights: `w_g`, a list in row-major order of the groups, or `"sqrt_size"` for
            the root of each group's size, as Yuan and Lin have it. Default None: 1.
        norm: `"l2"`, or `"max"` for the largest magnitude, with a proximal map for L1
            only. Default `"l2"`.

    Shapes: for `axis` any that has it; for `block` a multiple of it on each axis.
    In float32 a norm below 1e-19 counts as 0, and one above 1.8e19 as that.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> rows = kp.penalties.Grouped(kp.penalties.L1(0.5), axis=0)
        >>> float(rows(np.array([[3.0, 4.0], [0.0, 0.0]])))
        2.5
        >>> print(np.array(rows.prox([[3.0, 4.0], [0.3, 0.4]], 1.0)).round(2))
        [[2.4 3.2]
         [0.  0. ]]

    Raises:
        ValueError: if φ is no such penalty, more than one of `axis`, `block` and
            `groups` is given, two groups share an entry, or x or `weights` don't fit.

    Source: Yuan and Lin, "Model Selection and Estimation in Regression with Grouped
    Variables", 2006; for L∞,1 Turlach, Venables and Wright, "Simultaneous Variable
    Selection", 2005.
    """

    ignores_zeros = True
    joint = "groups"

    def __init__(
        self,
        penalty: Separable,
        axis: int | Sequence[int] | None = None,
        block: Sequence[int] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        weights: str | Sequence[float] | None = None,
        norm: str = "l2",
    ) -> None:
        self.penalty = checks.instance("penalty", penalty, Separable)
        if not penalty.even:
            checks.refuse("penalty", "one that acts on a norm, an even one", penalty)
        if sum(given is not None for given in (axis, block, groups)) > 1:
            checks.refuse("axis", "None beside `block` or `groups`, as these", axis)
        self.axis = None if axis is None else checks.axes("axis", axis)
        self.block = (
            None if block is None else [checks.integer("block", b) for b in block]
        )
        self.groups = None if groups is None else checked_groups("groups", groups)
        self.weights = _checked_weights(weights)
        self.norm = checks.one_of("norm", norm, ("l2", "max"))

    @property
    def strength(self) -> StrengthLike:  # type: ignore[override]
        """The inner penalty's."""
        return self.penalty.strength

    def with_strength(self, strength: StrengthLike) -> Self:
        """The same penalty with another strength inside."""
        return type(self)(
            **{**vars(self), "penalty": self.penalty.with_strength(strength)}
        )

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Whether the inner penalty is."""
        return self.penalty.convex

    @property
    def has_slope(self) -> bool:  # type: ignore[override]
        """Whether the inner penalty has one."""
        return bool(self.penalty.has_slope)

    @property
    def concavity(self) -> float:
        """The inner penalty's, times the largest weight: infinite where unknown."""
        if self.convex:
            return 0.0
        if self.norm == "max" or self.weights == "sqrt_size":
            return math.inf
        largest = max(self.weights) if isinstance(self.weights, list) else 1.0
        return largest * self.penalty.concavity

    @property
    def rank(self) -> int:  # type: ignore[override]
        """The number of axes that `axis` or `block` needs."""
        if self.block:
            return len(self.block)
        return max((a + 1 if a >= 0 else -a for a in listed(self.axis)), default=0)

    @property
    def has_prox(self) -> bool:
        """Whether the inner penalty's is known; for `norm="max"` only L1's helps."""
        return self.penalty.has_prox and (self.norm == "l2" or self.per_entry)

    @property
    def per_entry(self) -> bool:  # type: ignore[override]
        """For L1, L2 and ElasticNet."""
        elastic = self.penalty.elastic
        return elastic is not None and (self.norm == "l2" or elastic[1] == 0)

    @property
    def fuses(self) -> bool:  # type: ignore[override]
        """Not where `norm="max"` sorts, nor where `groups` gathers by indices."""
        return self.norm == "l2" and self.groups is None and self.penalty.fuses

    @property
    def _layout(self) -> Layout:
        return Layout(self.axis, self.block, self.groups)

    def nonzero_groups(self, x: Tensor) -> int:
        """How many groups of a weight have an entry that is not zero."""
        entries, axes = self._layout.spread(ops.convert_to_tensor(x))
        return int(np.sum(np.any(ops.convert_to_numpy(entries) != 0, axis=axes)))

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ_g w_g·φ(‖x_g‖)`."""
        entries, axes = self._layout.spread(x)
        weights = self._weights(x, entries, axes)
        if self.norm == "max":
            return ops.sum(weights * self.penalty.entrywise(_largest(entries, axes)))
        lengths = length(entries, axes)
        if self.penalty.elastic is None:
            return ops.sum(weights * self.penalty.entrywise(lengths))
        kink, bend = self.penalty.elastic
        total = ops.sum(weights * lengths) * kink
        if bend:
            total += ops.sum(weights * ops.square(math.sqrt(0.5 * bend) * lengths))
        return total

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """Refused where the mask would change the size of a group that counts."""
        _, axes = self._layout.spread(x)
        whole = not (self.groups or self.block) and all(
            mask.shape[a] == 1 for a in axes
        )
        if self.weights == "sqrt_size" and not whole:
            refuse_part(self)
        return self.compute_value(x)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """Each group scaled by φ's proximal map of its norm."""
        layout = self._layout
        entries, axes = layout.spread(x)
        single = math.prod(entries.shape[a] for a in axes) == 1
        one_t = math.prod(t.shape) == 1
        weights = self._weights(x, entries, axes)
        if self.norm == "l2" and (one_t or single):
            each = ops.reshape(t, ()) if one_t else layout.spread(t)[0]
            return layout.restored(self._scaled(entries, axes, weights * each), x)
        if not self.per_entry:
            raise ValueError(
                f"{self!r}.prox needs one t for the whole tensor: with one per entry "
                "it is known for L1, L2 and ElasticNet, with `norm='max'` for L1. "
                f"Received: t of shape {tuple(t.shape)}"
            )
        t = ops.broadcast_to(t, x.shape)
        if self.norm == "max":
            rows, each = layout.rows(x), layout.rows(t, 1.0)
            numbers = ops.convert_to_tensor(self._numbers(x, entries, axes), x.dtype)
            weights = ops.reshape(numbers, (-1, 1))
            return layout.joined(self._clipped(rows, each, weights), x)
        each = layout.spread(t, 1.0)[0]
        return layout.restored(self._pulled(entries, axes, weights * each), x)

    def _scaled(self, x: Tensor, axes: tuple[int, ...], t: Tensor) -> Tensor:
        """For one t in each group."""
        lengths = length(x, axes)
        shrunk = self.penalty.prox(lengths, ops.broadcast_to(t, lengths.shape))
        return x * (shrunk / ops.where(lengths > 0, lengths, ops.ones_like(lengths)))

    def _pulled(self, x: Tensor, axes: tuple[int, ...], t: Tensor) -> Tensor:
        """For one t in each entry, and φ = a·|·| + ½·b·(·)²."""
        kink, bend = self.penalty.elastic or (0.0, 0.0)
        if bend:
            shrinkage = 1.0 + bend * t
            x, t = x / shrinkage, t / shrinkage
        if kink == 0.0:
            return x
        pull = kink * t
        half = 0.5 * root_over(axes)(x, pull)  # r + t may overflow
        return x * (half / (ops.maximum(half, 1e-30) + 0.5 * pull))

    def _clipped(self, rows: Tensor, t: Tensor, weights: Tensor) -> Tensor:
        """For the largest magnitude and L1: the bound r with `Σ(|x| − r)₊/t = w`."""
        kink, _ = self.penalty.elastic or (0.0, 0.0)
        longest = ops.max(t, axis=1, keepdims=True)
        unit = ops.where(longest > 0, longest, ops.ones_like(longest))
        each = ops.maximum(t / unit, 1e-12)
        sizes, scale = scaled(ops.absolute(rows), axis=1)
        total = kink * weights * (longest / scale)
        dead = ops.sum(sizes / each, axis=1, keepdims=True) <= total
        excess = each * onto_simplex(sizes / each, 1.0 / each, total)
        clipped = scale * ops.where(dead, ops.zeros_like(rows), sizes - excess)
        return ops.where(t > 0, ops.sign(rows) * clipped, rows)

    def _weights(self, x: Tensor, entries: Tensor, axes: tuple[int, ...]) -> Tensor:
        """1, or a weight for each group, as it broadcasts to the entries."""
        numbers = self._numbers(x, entries, axes)
        if isinstance(numbers, list):
            numbers = self._layout.each(numbers, x)
        return ops.cast(numbers, x.dtype)

    def _numbers(self, x: Tensor, entries: Tensor, axes: tuple[int, ...]) -> Any:
        """1, the root of a group's size, or a list."""
        if self.weights is None:
            return 1.0
        if self.weights == "sqrt_size" and self.groups is None:
            size = math.prod(ops.shape(entries)[a] for a in axes)
            return ops.sqrt(ops.cast(size, x.dtype))
        given = self.weights
        if self.groups is not None and given == "sqrt_size":
            given = [math.sqrt(len(group)) for group in self.groups]
        kept = [n for a, n in enumerate(entries.shape) if a not in axes]
        if None not in kept and math.prod(kept) != len(given):
            checks.refuse(
                "weights", f"{math.prod(kept)}, one for a group", self.weights
            )
        return list(given)

    @classmethod
    def examples(cls) -> list[Self]:
        """Rows, columns, blocks, lists, and the largest magnitude."""
        return [
            cls(L1(0.5), axis=0),
            cls(MCP(0.5), axis=-1, weights="sqrt_size"),
            cls(ElasticNet(0.5), block=[2, 1]),
            cls(L1(0.5), groups=[[0, 3], [1, 2, 5]], weights=[1.0, 2.0]),
            cls(L1(0.5), groups=[[0, 1], [2, 3, 4]]),
            cls(L1(0.5), axis=0, norm="max"),
        ]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Multiples of the block; as many entries as the groups name, and one more."""
        if self.block is not None:
            return [tuple(2 * b for b in self.block)]
        if self.groups is not None:
            named = 1 + max(map(max, self.groups))
            return [(named,), (named + 1,)]
        return [s for s in super().example_shapes() if self._fits(s)]

    def _fits(self, shape: tuple[int, ...]) -> bool:
        count = math.prod(shape[a] for a in listed(self.axis))
        return not isinstance(self.weights, list) or count == len(self.weights)


def _largest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest magnitude of each group, its slope shared by ties."""
    sizes = absolute(x)
    top = ops.cast(sizes == ops.max(sizes, axis=axes, keepdims=True), x.dtype)
    share = top / ops.sum(top, axis=axes, keepdims=True)
    return ops.sum(ops.stop_gradient(share) * sizes, axis=axes, keepdims=True)


def _checked_weights(weights: Any) -> str | list[float] | None:
    if weights is None or isinstance(weights, str):
        return checks.one_of("weights", weights, (None, "sqrt_size"))
    found = [checks.non_negative("weights", w) for w in weights]
    if not any(found):
        checks.refuse("weights", "a list with a number above 0", weights)
    return found
