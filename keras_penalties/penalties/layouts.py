"""How the entries of a tensor fall into groups: by axes, by blocks, by lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import as_rows, from_rows, index_first
from keras_penalties.typing import Tensor


@dataclass(frozen=True)
class Layout:
    """Groups of entries, which `rows` gathers and `joined` puts back.

    One of the three is not None, or all of the tensor is one group.
    """

    axis: int | list[int] | None = None
    """The axes that index the groups."""
    block: list[int] | None = None
    """The shape of each group."""
    groups: list[list[int]] | None = None
    """Indices into the flattened tensor, none twice."""

    def rows(self, x: Tensor, padding: float = 0.0) -> Tensor:
        """(groups, entries); what is missing in a shorter group is `padding`."""
        if self.groups is not None:
            table, _ = self._tables(self.groups, x)
            return ops.take(ops.append(ops.reshape(x, (-1,)), padding), table, axis=0)
        if self.block is None:
            return as_rows(x, self.axis)
        counts, order = self._tiling(self.block, x)
        tiles = [n for pair in zip(counts, self.block, strict=True) for n in pair]
        tiled = ops.transpose(ops.reshape(x, tiles), order)
        return ops.reshape(tiled, (-1, math.prod(self.block)))

    def spread(self, x: Tensor, padding: float = 0.0) -> tuple[Tensor, tuple[int, ...]]:
        """A tensor and those of its axes that the entries of a group run over.

        For groups by `axis` that tensor is `x` itself, not gathered into rows: to
        gather would cost more than everything that is computed from the rows.
        """
        if self.groups is not None or self.block is not None:
            return self.rows(x, padding), (1,)
        order, count = index_first(x, self.axis)
        if count == len(order):
            return ops.expand_dims(x, -1), (count,)
        return x, tuple(sorted(order[count:]))

    def restored(self, spread: Tensor, x: Tensor) -> Tensor:
        """The entries that `spread` gave, in their places in `x`."""
        if self.groups is not None or self.block is not None:
            return self.joined(spread, x)
        return ops.reshape(spread, x.shape)

    def each(self, numbers: Sequence[float], x: Tensor) -> Any:
        """A number for each group, in row-major order, as it broadcasts to `spread`."""
        found = np.asarray(numbers)
        if self.groups is not None or self.block is not None:
            return found[:, None]
        order, count = index_first(x, self.axis)
        found = found.reshape([x.shape[a] or -1 for a in order[:count]])
        found = found.transpose(np.argsort(order[:count]))
        return np.expand_dims(found, order[count:] or [count])

    def joined(self, rows: Tensor, x: Tensor) -> Tensor:
        """The rows in the places of `x` that they come from; the rest stays as in x."""
        if self.groups is not None:
            _, places = self._tables(self.groups, x)
            pool = ops.append(ops.reshape(rows, (-1,)), ops.reshape(x, (-1,)))
            return ops.reshape(ops.take(pool, places, axis=0), x.shape)
        if self.block is None:
            return from_rows(rows, x, self.axis)
        counts, order = self._tiling(self.block, x)
        tiled = ops.reshape(rows, [*counts, *self.block])
        return ops.reshape(ops.transpose(tiled, np.argsort(order).tolist()), x.shape)

    @staticmethod
    def _tiling(block: list[int], x: Tensor) -> tuple[list[int], list[int]]:
        """How many blocks lie along each axis; first these axes, then the blocks'."""
        shape = tuple(x.shape)
        if len(block) != len(shape) or any(map(int.__mod__, shape, block)):
            checks.refuse("block", f"a shape that divides {shape}", block)
        counts = list(map(int.__floordiv__, shape, block))
        return counts, [*range(0, 2 * len(block), 2), *range(1, 2 * len(block), 2)]

    @staticmethod
    def _tables(groups: list[list[int]], x: Tensor) -> tuple[Any, Any]:
        """Which entry each place of the rows holds, and where each entry is found."""
        size = math.prod(x.shape)
        if max(map(max, groups)) >= size:
            checks.refuse("groups", f"indices into {size} entries", groups)
        table = np.full((len(groups), max(map(len, groups))), size, "int32")
        places = np.arange(size, dtype="int32") + table.size
        for g, members in enumerate(groups):
            table[g, : len(members)] = members
            places[members] = g * table.shape[1] + np.arange(len(members))
        return table, places


def listed(axis: int | list[int] | None) -> list[int]:
    """The axes, one or several or none, as a list."""
    return [] if axis is None else [axis] if isinstance(axis, int) else axis


def checked_groups(argument: str, groups: Any) -> list[list[int]]:
    """Lists of indices, none empty and none twice."""
    found = [[checks.integer(argument, i, 0) for i in group] for group in groups]
    indices = [i for group in found for i in group]
    if not found or not all(found) or len(set(indices)) < len(indices):
        checks.refuse(argument, "lists of indices, none empty, none twice", groups)
    return found
