"""First pass: which channels of a model can go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_penalties import checks, compat
from keras_penalties.compaction.channels import (
    Book,
    Channels,
    Ids,
    Mask,
    array,
    same_in_all,
)
from keras_penalties.compaction.rules import (
    Call,
    Read,
    Rule,
    keep_whole,
    rule_of,
    whole_tensor,
)
from keras_penalties.layers import Penalized

OUTPUT, READ = "the model gives it out", "it varies somewhere, and is read"
LEADER, LAST = "it stands for all constants", "a layer needs one"
BY_DESIGN = {OUTPUT, READ, LEADER, LAST}
"""Why a constant channel may stay although every layer is followed."""

# A kept constant stands in for another only if it is not tiny beside the largest.
_NOT_TINY = 1e-3


@dataclass
class Use:
    """A layer and its rule, which holds for all its calls."""

    layer: Any
    rule: Rule
    multiplies: dict[str, int]
    """At how many positions each weight multiplies, in all calls together."""

    @property
    def weights(self) -> dict[str, Any]:
        """The weights that the rule speaks of, those that the layer has, by name."""
        owner = self.layer.layer if isinstance(self.layer, Penalized) else self.layer
        found = {name: getattr(owner, name, None) for name in self.rule.slices}
        return {name: weight for name, weight in found.items() if weight is not None}


class Trace:
    """A walk through a model's graph, nested models included."""

    def __init__(self, model: Any) -> None:
        graph = compat.graph(model)
        if graph is None:
            checks.refuse("model", "a built Functional or Sequential model", model)
        self.book = Book()
        self.calls: dict[int, tuple[Any, list[Rule]]] = {}
        self.entries: dict[int, list[Channels]] = {}
        entering = [whole_tensor(self.book, t.shape, -1, "an input") for t in graph[0]]
        for x in self._walk(model, graph, entering):
            self.book.keep(x.ids, OUTPUT)
        self.uses = {key: self._agreed(*call) for key, call in self.calls.items()}

    def _walk(self, model: Any, graph: Any, entering: list[Channels]) -> list[Channels]:
        """The channels of a model's outputs, given those of its inputs."""
        inputs, nodes, outputs = graph
        self._enter(model, entering)
        found = {id(t): x for t, x in zip(inputs, entering, strict=True)}
        for node in nodes:
            reads = [found[id(t)] for t in node.input_tensors]
            for tensor, x in zip(node.outputs, self._call(node, reads), strict=True):
                found[id(tensor)] = x
        return [found[id(t)] for t in outputs]

    def _enter(self, model: Any, entering: list[Channels]) -> None:
        """All calls of a nested model must give it inputs of the same size."""
        for first, x in zip(
            self.entries.setdefault(id(model), entering), entering, strict=True
        ):
            if first.axis == x.axis:
                self.book.tie(first.ids, x.ids)
            else:
                self.book.keep(first.ids, "another axis in another call")
                self.book.keep(x.ids, "another axis in another call")

    def _call(self, node: Any, reads: list[Channels]) -> list[Channels]:
        layer = node.operation
        call = Call(layer, node, reads, self.book)
        inner = compat.graph(layer)
        if inner is not None and len(inner[0]) == len(reads):
            return self._walk(layer, inner, reads)
        if len(node.outputs) == 1:
            rule = rule_of(call)
        else:
            rule = keep_whole(call, f"{type(layer).__name__} has several outputs")
        self.calls.setdefault(id(layer), (layer, []))[1].append(rule)
        others = [
            whole_tensor(self.book, t.shape, -1, "not followed")
            for t in node.outputs[1:]
        ]
        return [rule.output, *others]

    def _agreed(self, layer: Any, rules: list[Rule]) -> Use:
        """The rule of a layer for all its calls, which are cut alike or not at all."""
        first, *others = rules
        multiplies: dict[str, int] = {}
        for rule in rules:
            for name, positions in rule.multiplies.items():
                multiplies[name] = multiplies.get(name, 0) + positions
        sides = [_sides(rule) for rule in rules]
        alike = all(_keys(side) == _keys(sides[0]) for side in sides)
        for side in sides:
            for key, ids in side.items():
                if alike:
                    self.book.tie(sides[0][key], ids)
                else:
                    self.book.keep(ids, f"{layer.name} is used in different ways")
        if not alike:
            first = Rule(first.output, whole="used in different ways")
        elif first.read and others:
            all_constants = [r.read.constants for r in rules if r.read is not None]
            read = replace(first.read, constants=same_in_all(all_constants))
            first = replace(first, read=read)
        return Use(layer, first, multiplies)

    @property
    def reads(self) -> list[Read]:
        """What mixes channels, readers of readers first."""
        found = [use.rule.read for use in self.uses.values()]
        return [read for read in reversed(found) if read is not None]


def _sides(rule: Rule) -> Mapping[Any, Ids]:
    """Every axis of a weight, and every number in the config, with its channels."""
    weights = {
        (name, axis): ids
        for name, axes in rule.slices.items()
        for axis, ids in axes.items()
    }
    return {**weights, **rule.sizes}


def _keys(side: Mapping[Any, Ids]) -> dict[Any, int]:
    return {key: len(ids) for key, ids in side.items()}


class Kept:
    """Which channels stay: as few as keep every output the same."""

    def __init__(self, trace: Trace) -> None:
        self._roots = trace.book.roots()
        self.why = trace.book.kept()
        self._mask = np.zeros(len(self._roots), dtype=bool)
        self._mask[list(self.why)] = True
        count = -1
        while count < (count := len(self.why)):
            self._keep_what_is_read(trace.reads)
            self._keep_one_of_each(trace.book.tensors)

    def mask(self, ids: Ids) -> Mask:
        """Which of these stay."""
        mask: Mask = self._mask[self._roots[ids]]
        return mask

    def reasons(self, ids: Ids) -> list[str]:
        """Why those of these that stay do so."""
        return [self.why[r] for r in self._roots[ids].tolist() if r in self.why]

    def _keep(self, ids: Iterable[int], why: str) -> None:
        for root in self._roots[list(ids)].tolist():
            self.why.setdefault(root, why)
            self._mask[root] = True

    def _keep_what_is_read(self, reads: list[Read]) -> None:
        for read in reads:
            wanted = read.uses[:, self.mask(read.outputs)].any(axis=1)
            wanted &= ~self.mask(read.ids)
            value = np.where(wanted, read.constants, 0.0)
            self._keep(read.ids[np.isnan(value)], READ)
            held = np.flatnonzero(~np.isnan(value) & (value != 0))
            if len(held) and not read.into_bias:
                if read.axis is None:
                    self._keep(read.ids[held], "a constant that no bias can hold")
                else:
                    leader = self.leader(read)
                    self._keep([read.ids[leader]], LEADER)

    def leader(self, read: Read) -> int:
        """The constant channel that stands in for the others, where a bias can't."""
        size = np.abs(np.nan_to_num(read.constants))
        kept = np.where(self.mask(read.ids), size, 0.0)
        best = int(np.argmax(kept))
        return best if kept[best] > _NOT_TINY * size.max() else int(np.argmax(size))

    def _keep_one_of_each(self, tensors: list[Ids]) -> None:
        for ids in tensors:
            if len(ids) and not self.mask(ids).any():
                self._keep(ids[:1], LAST)

    def cut(self, use: Use) -> dict[int, Any]:
        """The new values of a layer's weights, by the old weight's id."""
        weights = use.weights
        values = {name: array(weight) for name, weight in weights.items()}
        if use.rule.read is not None:
            self._fold(use.rule.read, values)
        for name in values:
            for axis, ids in use.rule.slices[name].items():
                values[name] = np.compress(self.mask(ids), values[name], axis)
        return {id(weights[name]): value for name, value in values.items()}

    def shape(self, use: Use, name: str) -> tuple[int, ...]:
        """The shape that `cut` gives a weight."""
        shape = list(use.weights[name].shape)
        for axis, ids in use.rule.slices[name].items():
            shape[axis] = int(self.mask(ids).sum())
        return tuple(shape)

    def _fold(self, read: Read, values: dict[str, Any]) -> None:
        """Let the bias, or a channel that stays, say what leaving constants said."""
        size = np.nan_to_num(read.constants)
        gone = np.flatnonzero(~self.mask(read.ids) & (size != 0))
        if not len(gone):
            return
        if read.into_bias:
            shift = size[gone] @ read.totals[gone].astype("float64")
            values["bias"] = (values["bias"] + shift).astype(values["bias"].dtype)
        elif read.axis is not None:
            leader = self.leader(read)
            rows = np.moveaxis(values["kernel"].copy(), read.axis, 0)
            rows[leader] += np.tensordot(size[gone] / size[leader], rows[gone], 1)
            values["kernel"] = np.moveaxis(rows, 0, read.axis)
