"""Penalties for a model that exists, and the plain model back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import keras

from keras_penalties import checks, compat
from keras_penalties.hosting.addresses import (
    layers_by_address,
    unused,
    weights_by_name,
)
from keras_penalties.hosting.claims import release, twin
from keras_penalties.hosting.logs import LOG_OPTIONS
from keras_penalties.hosting.rules import concrete
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.layers.model_penalty import ModelPenalty
from keras_penalties.penalties.base import Penalty
from keras_penalties.terms import terms


def penalize(
    model: keras.Model, rules: Mapping[Any, Any], *, log: str | bool = "rule"
) -> keras.Model:
    """A model with the same weights whose training also makes penalties small.

    `objective = data loss + Σ strength × penalty(target)`

    The model that comes back shares the layers and the weights of `model`, and has
    their names, its predictions and how it is compiled, the optimizer and its state
    included. One layer more, `ModelPenalty` at the output, adds the terms to the loss,
    shows them in the logs and saves what changes in them. Files of weights
    (`.weights.h5`) can be loaded in both models, whichever saved them. A `Sequential`
    becomes a functional model. A penalised model can be penalised again: the rules add.

    Args:
        model: A built functional or `Sequential` model, also one that has other models
            inside.
        rules: Which penalty on what: `{key: penalty}`. The key is one of three:

            - a regular expression for an address, or for the end of one from a `/` on.
              An address is the layers' names from the top down, then the weight's own
              name: `"kernel"` is also `"encoder/dense/kernel"`, and `"encoder/.*"` is
              all that lies in `encoder`.
            - a class of layers, such as `keras.layers.Dense`: the weights of such
              layers, and of layers inside them, whose name ends with `kernel` or is
              `embeddings`.
            - a function of an address and a weight that says whether the rule is meant.

            The penalty may be a string, such as `"l2(1e-4)"`, or a config; its strength
            a schedule, a `Target` or `Lazy`. A dict in its place makes the key choose
            layers (a function gets the address and the layer) and says what of each:
            `{"kernel": "l2(1e-4)", "bias": "l1(1e-5)"}`, or `{"outputs": "l1(0.01)"}`
            for what the layer gives out, divided by the batch size unless the penalty
            is a statistic of the batch.
        log: `"rule"` for one entry of the logs a rule (of a sum of penalties one for
            each), `"weight"` for one a weight, or `False` for none. Default `"rule"`.

    Returns:
        The penalised model. `model` itself stays as it is.

    Raises:
        ValueError: if the model has no graph (a subclass with a `call` or a constructor
            of its own); a key fits nothing; a penalty needs more axes than a weight
            has, or is a statistic and stands on a weight; a weight carries an equal
            penalty already; or the output of a layer inside another model is not also
            one of that model's outputs.

    Example:
        >>> import keras, keras_penalties as kp
        >>> layers = [keras.layers.Dense(2, "relu"), keras.layers.Dense(1)]
        >>> base = keras.Sequential([keras.Input((3,)), *layers])
        >>> model = kp.penalize(base, {keras.layers.Dense: "l2(1e-4)"})
        >>> [t.penalty for t in kp.terms(model)]
        [L2(strength=0.0001), L2(strength=0.0001)]
    """
    function = _function_of(model)
    checks.one_of("log", log, LOG_OPTIONS)
    layers = layers_by_address(model.layers)
    weights = {
        f"{address}/{name}": weight
        for address, layer in layers.items()
        if not isinstance(layer, PenaltyLayer)
        for name, weight in weights_by_name(layer, ever_trained=True).items()
    }
    layers = {
        address: layer
        for address, layer in layers.items()
        if not isinstance(layer, ModelPenalty | keras.layers.InputLayer)
    }
    taken = {rule["name"] for host in _hosts(model) for rule in host.rules}
    found = list(concrete(rules, weights, layers, taken))
    _refuse_doubles(model, found, weights)
    targets = {
        address: _output_tensors(function, address)
        for rule in found
        for address in rule.get("outputs", ())
    }
    name = unused("model_penalty", {layer.name for layer in model.layers})
    host = ModelPenalty(found, log, name=name)
    outputs = host(function.output, targets) if targets else host(function.output)
    return _made_again(model, function.input, outputs)


def strip(model: keras.Model) -> keras.Model:
    """The plain model of a penalised one, with the same weights.

    What `penalize` added is gone, also inside of a larger model, so that an exported
    model has no trace of it. Layers that the model was written with, as `Penalized`,
    stay.

    Args:
        model: Any functional model.

    Returns:
        The plain model, compiled as `model` is; `model` itself if it has nothing that
        `penalize` added.

    Raises:
        ValueError: if the model has no graph.

    Example:
        >>> import keras, keras_penalties as kp
        >>> base = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model = kp.penalize(base, {"kernel": "l2(1e-4)"})
        >>> [layer.name == "model_penalty" for layer in kp.strip(model).layers]
        [False, False]
    """
    hosts = _hosts(model)
    if not hosts:
        return model
    function = _function_of(model)
    outputs = function.output
    while isinstance(_last(outputs), ModelPenalty):
        call, _ = compat.origin(keras.tree.flatten(outputs)[0])
        outputs = compat.first_argument(call)
    plain = _made_again(model, function.input, outputs)
    if any(_hosts(layer) for layer in plain.layers):
        inside = keras.models.clone_model(plain, clone_function=_stripped)
        plain = _compiled(inside, model)
    for host in hosts:
        release(host)
    return plain


def _hosts(layer: Any) -> list[ModelPenalty]:
    return [x for x in compat.flat_layers(layer) if isinstance(x, ModelPenalty)]


def _stripped(layer: Any) -> Any:
    return strip(layer) if _hosts(layer) else layer


def _last(outputs: Any) -> Any:
    """The layer that gave the first of a model's outputs."""
    return compat.origin(keras.tree.flatten(outputs)[0])[0].operation


def _function_of(model: Any) -> Any:
    """The functional model that a model is, or the error that says what to do."""
    checks.instance("model", model, keras.Model)
    function = compat.functional(model)
    if function is None:
        _refuse_model(model)
    return function


def _refuse_model(model: Any) -> NoReturn:
    if type(model) is keras.Sequential:
        checks.refuse(
            "model", "a built model: call it, or start it with `Input`", model
        )
    cls = type(model).__name__
    ways = (
        "Let the optimizer penalise its weights: `model.compile(kp.optimizers."
        "Penalizing('adam', {'.*kernel': 'l2(1e-4)'}), ...)`"
    )
    if compat.has_graph(model):
        ways += (
            f". Or penalise the graph without the methods of {cls}: "
            "`kp.penalize(keras.Model(model.inputs, model.outputs), ...)`"
        )
    checks.refuse(
        "model",
        "a functional or Sequential model, which has a graph to put the penalties in. "
        f"{cls} has a `call` or a constructor of its own. {ways}",
        model,
    )


def _refuse_doubles(
    model: Any, rules: Sequence[Mapping[str, Any]], weights: Mapping[str, Any]
) -> None:
    """Each penalty acts once on a weight, whoever hosts it."""
    layers = set(compat.flat_layers(model))
    by_optimizer = [t for t in terms(model) if t.host == "optimizer"]
    new: dict[int, list[Penalty]] = {}
    for address, part in _weight_parts(rules):
        weight = weights[address]
        own = new.setdefault(id(weight), [])
        others = [*own, *(t.penalty for t in by_optimizer if t.weight is weight)]
        other = next((p for p in others if p.alike(part)), None)
        other = other or twin(weight, part, within=layers)
        if other is not None:
            checks.refuse(
                "rules",
                f"for '{address}' no penalty that is equal, except for the strength, "
                f"to one that it carries already: {other}. Add the strengths and keep "
                "one",
                part,
            )
        own.append(part)


def _weight_parts(
    rules: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, Penalty]]:
    for rule in rules:
        for address in rule.get("weights", ()):
            for part in rule["penalty"].parts():
                yield address, part


def _output_tensors(model: Any, address: str) -> list[Any]:
    """What the layer at an address gives out, as tensors of the model's own graph."""
    found = _tensors(model, address)
    if not found:
        checks.refuse(
            "rules",
            "for outputs layers that the model itself calls, or such in a model inside "
            "whose output is also one of that model's outputs. For others write the "
            "model with `layers.Penalized(layer, outputs=...)`",
            address,
        )
    return found


def _tensors(model: Any, address: str) -> list[Any]:
    graph = compat.graph(model)
    found = []
    for call in [] if graph is None else graph[1]:
        layer = call.operation
        if layer.name == address:
            found += call.outputs
        elif address.startswith(f"{layer.name}/"):
            inside = compat.functional(layer)
            inner = _tensors(layer, address.removeprefix(f"{layer.name}/"))
            given = [] if inside is None else [id(t) for t in inside.outputs]
            if not all(id(t) in given for t in inner):
                return []
            found += [call.outputs[given.index(id(t))] for t in inner]
    return found


def _made_again(model: Any, inputs: Any, outputs: Any) -> Any:
    """A model of the same class, name and state of training and compilation."""
    sequential = type(model) is keras.Sequential
    cls = keras.Model if sequential else type(model)
    made = cls(inputs=inputs, outputs=outputs, name=model.name)
    if not model.trainable:
        made.trainable = False
    return _compiled(made, model)


def _compiled(made: Any, model: Any) -> Any:
    """`made`, compiled as the model is, with the optimizer itself."""
    if model.compiled:
        made.compile(**compat.compile_arguments(model))
    return made
