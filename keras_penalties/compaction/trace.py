"""The first pass over a model: it finds the channels that can be removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from keras_penalties import checks, compat
from keras_penalties.compaction.channels import (
    ChannelGroups,
    Channels,
    Ids,
    Mask,
    array,
    same_in_all,
)
from keras_penalties.compaction.rules import (
    Call,
    Reader,
    Rule,
    keep_unchanged,
    kept_tensor,
    rule_of,
)
from keras_penalties.layers import Penalized

Graph: TypeAlias = tuple[list[Any], list[Any], list[Any]]
"""A model's inputs, its calls in order, and its outputs, as Keras' own objects."""

OUTPUT = "it is an output of the model"
READ = "a channel of its group varies, and a layer reads it"
STAND_IN = "it carries constants that no bias can take over"
LAST = "a layer keeps at least one unit"
EXPECTED = {OUTPUT, READ, STAND_IN, LAST}
"""Reasons for which a constant channel stays although every layer is known."""

# The least size of a constant that takes over others, as a share of the largest one:
# the weights of its channel grow by the inverse.
_SMALLEST_SHARE = 1e-3


@dataclass
class TracedLayer:
    """A layer and the one rule for all its calls."""

    layer: keras.layers.Layer
    rule: Rule
    positions: dict[str, int]
    """At how many positions each kernel is multiplied, in all calls together."""

    @property
    def weights(self) -> dict[str, keras.Variable]:
        """The layer's weights that have channels, by name."""
        owner = self.layer.layer if isinstance(self.layer, Penalized) else self.layer
        found = {name: getattr(owner, name, None) for name in self.rule.slices}
        return {name: weight for name, weight in found.items() if weight is not None}


class Trace:
    """The rules and channel groups of a model's layers, nested models included."""

    def __init__(self, model: keras.Model) -> None:
        graph = compat.graph(model)
        if graph is None:
            checks.refuse("model", "a built Functional or Sequential model", model)
        self.groups = ChannelGroups()
        self.calls: dict[int, tuple[keras.layers.Layer, list[Rule]]] = {}
        self.entries: dict[int, list[Channels]] = {}
        entering = [
            kept_tensor(self.groups, t.shape, -1, "it is an input of the model")
            for t in graph[0]
        ]
        for x in self._walk(model, graph, entering):
            self.groups.keep(x.ids, OUTPUT)
        self.layers = {key: self._agreed(*call) for key, call in self.calls.items()}

    def _walk(
        self, model: keras.Model, graph: Graph, entering: list[Channels]
    ) -> list[Channels]:
        """The channels of a model's outputs, given those of its inputs."""
        tensors, nodes, outputs = graph
        self._enter(model, entering)
        found = {id(t): x for t, x in zip(tensors, entering, strict=True)}
        for node in nodes:
            inputs = [found[id(t)] for t in node.input_tensors]
            for tensor, x in zip(node.outputs, self._call(node, inputs), strict=True):
                found[id(tensor)] = x
        return [found[id(t)] for t in outputs]

    def _enter(self, model: keras.Model, entering: list[Channels]) -> None:
        """Unite the inputs of all calls of a nested model: it has one size for all."""
        for first, x in zip(
            self.entries.setdefault(id(model), entering), entering, strict=True
        ):
            if first.axis == x.axis:
                self.groups.unite(first.ids, x.ids)
            else:
                self.groups.keep(
                    first.ids, "another call of its model uses another axis"
                )
                self.groups.keep(x.ids, "another call of its model uses another axis")

    def _call(self, node: Any, inputs: list[Channels]) -> list[Channels]:
        layer = node.operation
        call = Call(layer, node, inputs, self.groups)
        inner = compat.graph(layer)
        if inner is not None and len(inner[0]) == len(inputs):
            return self._walk(layer, inner, inputs)
        if len(node.outputs) == 1:
            rule = rule_of(call)
        else:
            rule = keep_unchanged(call, f"{type(layer).__name__} has several outputs")
        self.calls.setdefault(id(layer), (layer, []))[1].append(rule)
        others = [
            kept_tensor(self.groups, t.shape, -1, "its layer has several outputs")
            for t in node.outputs[1:]
        ]
        return [rule.output, *others]

    def _agreed(self, layer: keras.layers.Layer, rules: list[Rule]) -> TracedLayer:
        """One rule for all calls of a layer. If they differ, all channels are kept."""
        first, *others = rules
        positions: Counter[str] = Counter()
        for rule in rules:
            positions.update(rule.positions)
        sides = [_sides(rule) for rule in rules]
        alike = all(_keys(side) == _keys(sides[0]) for side in sides)
        for side in sides:
            for key, ids in side.items():
                if alike:
                    self.groups.unite(sides[0][key], ids)
                else:
                    self.groups.keep(
                        ids, f"the calls of {layer.name} have different channels"
                    )
        if not alike:
            first = Rule(first.output, unchanged="its calls have different channels")
        elif first.reader and others:
            all_constants = [r.reader.constants for r in rules if r.reader is not None]
            reader = replace(first.reader, constants=same_in_all(all_constants))
            first = replace(first, reader=reader)
        return TracedLayer(layer, first, positions)

    @property
    def readers(self) -> list[Reader]:
        """All layers that mix channels, from the outputs back to the inputs."""
        found = [traced.rule.reader for traced in self.layers.values()]
        return [reader for reader in reversed(found) if reader is not None]


def _sides(rule: Rule) -> Mapping[Any, Ids]:
    """Every axis of a weight, and every number in the config, that counts channels."""
    weights = {
        (name, axis): ids
        for name, axes in rule.slices.items()
        for axis, ids in axes.items()
    }
    return {**weights, **rule.sizes}


def _keys(side: Mapping[Any, Ids]) -> dict[Any, int]:
    return {key: len(ids) for key, ids in side.items()}


class Kept:
    """The channels that stay: the fewest known with which every output is the same."""

    def __init__(self, trace: Trace) -> None:
        self._roots = trace.groups.roots()
        self.why = trace.groups.kept()
        self._mask = np.zeros(len(self._roots), dtype=bool)
        self._mask[list(self.why)] = True
        count = -1
        while count < (count := len(self.why)):
            self._keep_what_a_reader_needs(trace.readers)
            self._keep_one_of_each(trace.groups.tensors)

    def mask(self, ids: Ids) -> Mask:
        """For each of these channels whether it stays."""
        mask: Mask = self._mask[self._roots[ids]]
        return mask

    def reasons(self, ids: Ids) -> list[str]:
        """The reason for each of these channels that stays."""
        return [self.why[r] for r in self._roots[ids].tolist() if r in self.why]

    def _keep(self, ids: Iterable[int], why: str) -> None:
        for root in self._roots[list(ids)].tolist():
            self.why.setdefault(root, why)
            self._mask[root] = True

    def _keep_what_a_reader_needs(self, readers: list[Reader]) -> None:
        for reader in readers:
            wanted = reader.uses[:, self.mask(reader.outputs)].any(axis=1)
            wanted &= ~self.mask(reader.ids)
            value = np.where(wanted, reader.constants, 0.0)
            self._keep(reader.ids[np.isnan(value)], READ)
            held = np.flatnonzero(~np.isnan(value) & (value != 0))
            if len(held) and not reader.folds_into_bias:
                if reader.axis is None:
                    self._keep(reader.ids[held], "no bias can take over its constant")
                else:
                    stand_in = self.stand_in(reader)
                    self._keep([reader.ids[stand_in]], STAND_IN)

    def stand_in(self, reader: Reader) -> int:
        """The constant channel that takes over the others, where no bias can."""
        size = np.abs(np.nan_to_num(reader.constants))
        kept = np.where(self.mask(reader.ids), size, 0.0)
        best = int(np.argmax(kept))
        return (
            best if kept[best] > _SMALLEST_SHARE * size.max() else int(np.argmax(size))
        )

    def _keep_one_of_each(self, tensors: list[Ids]) -> None:
        for ids in tensors:
            if len(ids) and not self.mask(ids).any():
                self._keep(ids[:1], LAST)

    def cut(self, traced: TracedLayer) -> dict[int, npt.NDArray[Any]]:
        """The new values of a layer's weights, by the old weight's id."""
        weights = traced.weights
        values = {name: array(weight) for name, weight in weights.items()}
        if traced.rule.reader is not None:
            self._fold(traced.rule.reader, values)
        for name in values:
            for axis, ids in traced.rule.slices[name].items():
                values[name] = np.compress(self.mask(ids), values[name], axis)
        return {id(weights[name]): value for name, value in values.items()}

    def shape(self, traced: TracedLayer, name: str) -> tuple[int, ...]:
        """The shape that `cut` gives a weight."""
        shape = list(traced.weights[name].shape)
        for axis, ids in traced.rule.slices[name].items():
            shape[axis] = int(self.mask(ids).sum())
        return tuple(shape)

    def _fold(self, reader: Reader, values: dict[str, npt.NDArray[Any]]) -> None:
        """Add to the bias, or to a channel that stays, what removed constants added."""
        size = np.nan_to_num(reader.constants)
        gone = np.flatnonzero(~self.mask(reader.ids) & (size != 0))
        if not len(gone):
            return
        if reader.folds_into_bias:
            shift = size[gone] @ reader.totals[gone].astype("float64")
            values["bias"] = (values["bias"] + shift).astype(values["bias"].dtype)
        elif reader.axis is not None:
            stand_in = self.stand_in(reader)
            rows = np.moveaxis(values["kernel"].copy(), reader.axis, 0)
            rows[stand_in] += np.tensordot(size[gone] / size[stand_in], rows[gone], 1)
            values["kernel"] = np.moveaxis(rows, 0, reader.axis)
