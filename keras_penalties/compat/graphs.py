"""The graph of a model: which call reads which tensor. Compaction follows the tensors.

- Private: the class `Functional`, the one inside a `Sequential`, its nodes, and whether
  a subclass can be made again from inputs and outputs. Publicly Keras tells which
  layers a model has, and not what each call of a layer reads.
- Needless when `test_who_reads_which_tensor_is_private` of `tests/test_needless.py`
  fails.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_penalties.compat.private import Missing, part_of, private

_FEATURE = "Compaction of models"
_Functional = private(_FEATURE, "keras.src.models.functional:Functional")
_functional_like_constructor = private(
    _FEATURE, "keras.src.models.functional:functional_like_constructor"
)


def graph(model: Any) -> tuple[list[Any], list[Any], list[Any]] | None:
    """A model's inputs, its calls in order, and its outputs.

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
    if not plain:
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
