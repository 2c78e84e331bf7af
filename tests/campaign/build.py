"""From a description to a compiled Keras model, and its data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import keras

import keras_penalties as kp
from campaign import data
from campaign.build_layers import (
    Made,
    functional,
    input_of,
    make_layers,
    one,
    penalty_of,
    walk,
)
from campaign.describe import Graph, Layer, Model, graph_from


@kp.register(package="campaign")
class Subclassed(keras.Model):
    """A model whose `call` walks the graph."""

    def __init__(self, graph: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.graph_data = graph
        self._walked = graph_from(graph)
        self._made = make_layers(self._walked)
        self._held = [made.called for made in self._made.values()]

    def call(self, inputs: Any, training: Any = None) -> Any:
        """The outputs."""
        given = inputs if isinstance(inputs, list | tuple) else [inputs]
        return one(walk(self._walked, self._made, list(given), training=training))

    def get_config(self) -> dict[str, Any]:
        """The graph."""
        return {"graph": self.graph_data, "name": self.name}

    def get_build_config(self) -> dict[str, Any]:
        """Nothing: the graph has the shapes."""
        return {"shapes": "of the graph"}

    def build_from_config(self, config: Any) -> None:
        """Build by a call."""
        self(one([input_of(x) for x in self._walked.inputs]))


@dataclass
class Built:
    """A Keras model, ready to be trained. Its weights have the description's names."""

    model: Any
    variables: dict[str, Any]
    data: data.Data
    kinds: list[str]
    """Of each output: `"flat"` or `"sequence"`."""


def build(model: Model) -> Built:
    """The model of a description, compiled, and its data."""
    keras.config.set_dtype_policy(model.fit.policy)
    try:
        made, built = _styled(model)
        if model.rules:
            built = kp.penalize(built, _rules(model))
        kinds = ["sequence" if len(t) == 3 else "flat" for t in _shapes(built, model)]
        compile_model(built, model)
    finally:
        keras.config.set_dtype_policy("float32")
    variables = _variables(model.graph, made)
    for name, variable in variables.items():
        if not name.endswith("log_strength"):
            variable.assign(data.start(model.seed, name, tuple(variable.shape)))
    return Built(built, variables, data.data_of(model, kinds), kinds)


def _styled(model: Model) -> tuple[dict[str, Made], Any]:
    if model.style == "subclassed":
        graph = json.loads(json.dumps(asdict(model.graph)))
        built = Subclassed(graph)
        built.build_from_config({})
        return built._made, built
    made = make_layers(model.graph)
    if model.style == "sequential":
        inputs = input_of(model.graph.inputs[0])
        chain = [made[call.layer].called for call in model.graph.calls]
        return made, keras.Sequential([inputs, *chain])
    return made, functional(model.graph, made)


def _shapes(built: Any, model: Model) -> list[Any]:
    if model.style == "subclassed":
        inputs = [input_of(x) for x in model.graph.inputs]
        return [t.shape for t in keras.tree.flatten(built(one(inputs)))]
    return [t.shape for t in built.outputs]


def _rules(model: Model) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for rule in model.rules:
        if rule.weight is None:
            rules[rule.layer] = {"outputs": penalty_of(rule.penalties)}
        else:
            address = _pattern(model, f"{rule.layer}/{rule.weight}")
            rules[address] = penalty_of(rule.penalties)
    return rules


def _pattern(model: Model, address: str) -> str:
    """An address as the package has it: the weights of an LSTM lie in its cell."""
    layer, _, weight = address.partition("/")
    kinds = {x.name: x.kind for x in model.graph.everywhere()}
    return f"{layer}/.*/{weight}" if kinds[layer] == "lstm" else address


def _loss(given: Any) -> Any:
    ignore = "nan" if given.ignore else None
    return {
        "mse": lambda: keras.losses.MeanSquaredError(),
        "crossentropy": lambda: keras.losses.SparseCategoricalCrossentropy(True),
        "half": lambda: kp.losses.HalfSumSquaredError(ignore=ignore),
        "pinball": lambda: kp.losses.Pinball(0.3, ignore=ignore),
    }[given.kind]()


def optimizer_of(model: Model) -> Any:
    """The optimizer."""
    given = model.optimizer
    inner = keras.optimizers.SGD(
        given.rate, gradient_accumulation_steps=given.accumulation
    )
    if given.kind == "sgd":
        return inner
    cls = {"proximal": kp.optimizers.Proximal, "penalizing": kp.optimizers.Penalizing}
    penalties = {
        _pattern(model, address): penalty_of(p)
        for address, p in given.penalties.items()
    }
    return cls[given.kind](inner, penalties)


def compile_model(built: Any, model: Model) -> None:
    """`compile` as the description has it."""
    fit = model.fit
    several = len(model.losses) > 1
    built.compile(
        optimizer_of(model),
        one([_loss(x) for x in model.losses]),
        loss_weights=[x.weight for x in model.losses] if several else None,
        jit_compile=False if fit.eager else fit.jit,
        run_eagerly=fit.eager,
        steps_per_execution=fit.steps,
    )


def _variables(graph: Graph, made: dict[str, Made]) -> dict[str, Any]:
    """The weights by layer and name, without the states of hosts."""
    found: dict[str, Any] = {}
    for layer in graph.layers:
        if layer.kind == "model":
            assert layer.inner is not None
            inside = {x.name: x for x in layer.inner.layers}
            for inner in made[layer.name].plain.layers:
                if (known := inside.get(_base(inner))) is not None:
                    found |= _own(known, inner)
            continue
        found |= _own(layer, made[layer.name].plain)
    return found


def _base(layer: Any) -> str:
    return getattr(layer, "layer", layer).name


def _own(layer: Layer, plain: Any) -> dict[str, Any]:
    if layer.kind == "activity_penalty":
        return {}
    if layer.kind == "add_loss":
        found = [w for w in plain.weights if w.name == "log_strength"]
        return {f"{layer.name}/log_strength": w for w in found}
    plain = getattr(plain, "layer", plain)
    if layer.kind == "attention":
        return {
            f"{layer.name}/{'/'.join(w.path.split('/')[-2:])}": w for w in plain.weights
        }
    return {f"{layer.name}/{w.name}": w for w in plain.weights}
