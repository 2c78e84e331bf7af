"""The channels of a model's tensors, and the groups that they form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

Ids = npt.NDArray[np.intp]
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Channels:
    """The channels of one tensor: its slices along one axis.

    Channels with the same id, also in different tensors, are the same channel: all of
    them stay or all are removed.
    """

    ids: Ids
    axis: int
    constants: Values
    """The value that a channel has for every input and at every position, or NaN if its
    value varies."""

    def with_constants(self, constants: Values) -> Channels:
        """The same channels after a function that works channel by channel."""
        return Channels(self.ids, self.axis, constants)


class ChannelGroups:
    """The ids of all channels, the groups that they form, and those that must stay.

    Channels of one group stay together or are removed together. The groups are disjoint
    sets, each a tree of ids (union-find).
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._kept: list[tuple[Ids, str]] = []
        self.tensors: list[Ids] = []

    def new(self, count: int) -> Ids:
        """New ids for a tensor's channels."""
        ids = np.arange(len(self._parents), len(self._parents) + count)
        self._parents += ids.tolist()
        self.tensors.append(ids)
        return ids

    def unite(self, a: Ids, b: Ids) -> None:
        """Put each channel of `a` into the group of the channel of `b` at its place."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            self._parents[self._root(x)] = self._root(y)

    def _root(self, x: int) -> int:
        parents = self._parents
        while parents[x] != x:
            parents[x] = parents[parents[x]]
            x = parents[x]
        return x

    def keep(self, ids: Ids, why: str) -> None:
        """Mark these channels, and so their groups, as needed, with a reason."""
        self._kept.append((ids, why))

    def roots(self) -> Ids:
        """For each id the root of its group."""
        return np.array([self._root(x) for x in range(len(self._parents))], dtype=int)

    def kept(self) -> dict[int, str]:
        """The roots of the groups that must stay, with the first reason for each."""
        kept: dict[int, str] = {}
        for ids, why in self._kept:
            for x in ids.tolist():
                kept.setdefault(self._root(x), why)
        return kept


def varying(count: int) -> Values:
    """The constants of channels that all vary."""
    return np.full(count, np.nan)


def same_in_all(constants: list[Values]) -> Values:
    """The constants where all agree, NaN elsewhere."""
    first = constants[0]
    return np.where(np.all([c == first for c in constants], axis=0), first, np.nan)


def array(variable: Any) -> npt.NDArray[Any]:
    """A weight's value as an array, in float32 if numpy lacks the weight's dtype."""
    value = ops.convert_to_numpy(variable)
    return value.astype("float32") if value.dtype.kind not in "fiub" else value
