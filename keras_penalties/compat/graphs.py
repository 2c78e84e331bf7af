"""The graph of a model: which call reads which tensor.

Compaction follows the tensors, and the host of `penalize` finds the weights before it.

- Private: the class `Functional`, the one inside a `Sequential`, its nodes and its
  structure of inputs, and whether a subclass can be made again from inputs and outputs.
  Publicly Keras tells which layers a model has, and not what each call of a layer
  reads.
- Replaced: `output_names` of a `Functional` model, by which `compile` knows losses and
  metrics. Keras takes the name of the last layer of each output, which the host would
  be: all outputs would have one name.
- Needless when `test_who_reads_which_tensor_is_private` or
  `test_an_output_is_named_by_its_last_layer` of `tests/test_needless.py` fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_penalties.compat.private import Missing, part_of, private

_FEATURE = "Compaction and `penalize`"
_Functional = private(_FEATURE, "keras.src.models.functional:Functional")
_functional_like_constructor = private(
    _FEATURE, "keras.src.models.functional:functional_like_constructor"
)


def has_graph(model: Any) -> bool:
    """Whether a model has a graph, though perhaps a class and a `call` of its own."""
    return not isinstance(_Functional, Missing) and isinstance(model, _Functional)


def functional(model: Any) -> Any:
    """The functional model that a model is, or that is inside a `Sequential`.

    None for a model that has its own `call`, is not built, or can't be made again from
    inputs and outputs.
    """
    if isinstance(_Functional, Missing):
        _Functional()
    sequential = type(model) is keras.Sequential
    function: Any = part_of(model, "_functional", _FEATURE) if sequential else model
    plain = isinstance(function, _Functional) and (
        type(function).call is _Functional.call
        and _functional_like_constructor(type(function))
    )
    return function if plain else None


def graph(model: Any) -> tuple[list[Any], list[Any], list[Any]] | None:
    """A model's inputs, its calls in order, and its outputs.

    None where `functional` gives None.
    """
    function = functional(model)
    if function is None:
        return None
    by_depth = part_of(function, "_nodes_by_depth", _FEATURE)
    known = {id(t) for t in function.inputs}
    nodes = []
    for node in (
        n for depth in sorted(by_depth, reverse=True) for n in by_depth[depth]
    ):
        if node.is_input or not all(id(t) in known for t in node.input_tensors):
            continue
        known.update(id(t) for t in node.outputs)
        nodes.append(node)
    return list(function.inputs), nodes, list(function.outputs)


def origin(tensor: Any) -> tuple[Any, int]:
    """The call that a symbolic tensor came from, and its place in what that gave."""
    layer, call, place = part_of(tensor, "_keras_history", _FEATURE)
    return part_of(layer, "_inbound_nodes", _FEATURE)[call], place


def calls(layer: Any) -> list[Any]:
    """The calls of a layer in graphs."""
    return list(part_of(layer, "_inbound_nodes", _FEATURE))


def layers_before(tensors: Iterable[Any]) -> Iterator[Any]:
    """The layers that symbolic tensors were made by."""
    todo = list(tensors)
    seen: set[int] = set()
    while todo:
        call, _ = origin(todo.pop())
        if id(call) in seen:
            continue
        seen.add(id(call))
        todo += reversed(call.input_tensors)
        if id(call.operation) not in seen:
            seen.add(id(call.operation))
            if isinstance(call.operation, keras.layers.Layer):
                yield call.operation


def first_argument(call: Any) -> Any:
    """What a layer was called on, or the first of several."""
    arguments = call.arguments
    return next(iter([*arguments.args, *arguments.kwargs.values()]))


def _name(tensor: Any) -> str:
    """The name of the last layer before a tensor that is no host."""
    call, place = origin(tensor)
    while getattr(call.operation, "gives_first_argument", False):
        tensor = keras.tree.flatten(first_argument(call))[place]
        call, place = origin(tensor)
    return str(call.operation.name)


class _OutputNames:
    """The attribute `output_names`: what Keras or a user sets, except hosts' names."""

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self
        try:
            return vars(model)["_named_outputs"]
        except KeyError:
            raise AttributeError("output_names") from None

    def __set__(self, model: Any, names: Any) -> None:
        own = [origin(tensor)[0].operation.name for tensor in model.outputs]
        if list(names) == own:  # Keras sets them
            names = [_name(tensor) for tensor in model.outputs]
        vars(model)["_named_outputs"] = names


if not isinstance(_Functional, Missing):
    _Functional.output_names = _OutputNames()
