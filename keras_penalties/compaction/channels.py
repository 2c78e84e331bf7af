"""Which channels of a graph's tensors stay or go together."""

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

    Channels with one id, in whatever tensors, stay or go together.
    """

    ids: Ids
    axis: int
    constants: Values
    """What a channel is for every input and at every position; NaN if it varies."""

    def with_constants(self, constants: Values) -> Channels:
        """The same channels after a function that works channel by channel."""
        return Channels(self.ids, self.axis, constants)


class Book:
    """The ids of all channels, which of them are tied, and which must stay."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._kept: list[tuple[Ids, str]] = []
        self.tensors: list[Ids] = []

    def fresh(self, count: int) -> Ids:
        """New ids for a tensor's channels."""
        ids = np.arange(len(self._parents), len(self._parents) + count)
        self._parents += ids.tolist()
        self.tensors.append(ids)
        return ids

    def tie(self, a: Ids, b: Ids) -> None:
        """Let each of `a` stay or go with the one of `b` at its place."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            self._parents[self._root(x)] = self._root(y)

    def _root(self, x: int) -> int:
        parents = self._parents
        while parents[x] != x:
            parents[x] = parents[parents[x]]
            x = parents[x]
        return x

    def keep(self, ids: Ids, why: str) -> None:
        """Let these stay."""
        self._kept.append((ids, why))

    def roots(self) -> Ids:
        """One id for all that are tied, by id."""
        return np.array([self._root(x) for x in range(len(self._parents))], dtype=int)

    def kept(self) -> dict[int, str]:
        """The roots of those that must stay, and the first reason for each."""
        kept: dict[int, str] = {}
        for ids, why in self._kept:
            for x in ids.tolist():
                kept.setdefault(self._root(x), why)
        return kept


def varying(count: int) -> Values:
    """Constants of channels none of which is constant."""
    return np.full(count, np.nan)


def same_in_all(constants: list[Values]) -> Values:
    """Where all agree, what they are."""
    first = constants[0]
    return np.where(np.all([c == first for c in constants], axis=0), first, np.nan)


def array(variable: Any) -> npt.NDArray[Any]:
    """A weight's value; in float32 if numpy has no such dtype."""
    value = ops.convert_to_numpy(variable)
    return value.astype("float32") if value.dtype.kind not in "fiub" else value
