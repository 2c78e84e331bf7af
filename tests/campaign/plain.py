"""A case without this package: the same layers, data and training, and no penalty."""

from __future__ import annotations

import dataclasses

from campaign.describe import Graph, Layer, Model, Optimizer
from campaign.terms import DERIVATIVES, OWN_HOSTS


def plain(model: Model) -> Model:
    """The case as plain Keras has it. What deviates there too is no fault of ours."""
    given = model.optimizer
    optimizer = Optimizer(rate=given.rate, accumulation=given.accumulation)
    graph = _plain(model.graph)
    return dataclasses.replace(model, graph=graph, rules=(), optimizer=optimizer)


def _plain(graph: Graph) -> Graph:
    """The graph without hosts: those that only pass their input on are left out."""
    layers = {x.name: _bare(x) for x in graph.layers if not _passes_on(x)}
    same: dict[str, str] = {}
    calls = []
    for call in graph.calls:
        inputs = tuple(same.get(name, name) for name in call.inputs)
        if call.layer in layers:
            calls.append(dataclasses.replace(call, inputs=inputs))
        else:
            same[call.output] = inputs[0]
    outputs = tuple(same.get(name, name) for name in graph.outputs)
    return Graph(graph.inputs, tuple(layers.values()), tuple(calls), outputs)


def _passes_on(layer: Layer) -> bool:
    return layer.kind in OWN_HOSTS and layer.kind not in DERIVATIVES


def _bare(layer: Layer) -> Layer:
    kind = "dense" if layer.kind in DERIVATIVES else layer.kind
    inner = layer.inner and _plain(layer.inner)
    nothing = {"slots": {}, "weights": {}, "outputs": (), "penalties": ()}
    return dataclasses.replace(layer, kind=kind, inner=inner, **nothing)
