"""Which weights and which other layers a layer holds.

- Private: `_layers`, `_trainable_variables` and `_non_trainable_variables`. Publicly, a
  layer gives the weights of all layers inside it in one list, and a layer that is no
  model does not give its layers.
- Needless when `test_what_a_layer_holds_is_private` of `tests/test_needless.py` fails.
"""

from __future__ import annotations

from typing import Any

from keras_penalties.compat.private import part_of

_FEATURE = "Finding the layers and weights inside a model"


def flat_layers(layer: Any) -> list[Any]:
    """The layer and all layers inside it, each once, in the order they were added."""
    seen: dict[int, Any] = {}

    def visit(node: Any) -> None:
        if id(node) not in seen:
            seen[id(node)] = node
            for child in inner_layers(node):
                visit(child)

    visit(layer)
    return list(seen.values())


def inner_layers(layer: Any) -> list[Any]:
    """The layers that the layer itself holds, in the order they were added."""
    return list(part_of(layer, "_layers", _FEATURE))


def own_weights(layer: Any) -> list[Any]:
    """The weights that the layer itself holds, without those of layers inside it."""
    kinds = ("_trainable_variables", "_non_trainable_variables")
    return [w for kind in kinds for w in part_of(layer, kind, _FEATURE)]


def own_trained_weights(layer: Any) -> list[Any]:
    """Those of `own_weights` that are trained, or would be if they were not frozen."""
    return list(part_of(layer, "_trainable_variables", _FEATURE))
