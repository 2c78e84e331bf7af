"""Which losses a model is compiled with, and what each layer has added to the loss.

- Private: `_compile_loss`, which holds the losses with their weights and outputs once
  they are known, `_outputs_struct`, `fn` and `_fn_kwargs` of a loss made of a function,
  and `_get_own_losses`. Publicly there is what the user gave to `compile`, in any of
  its many forms, and one list with the losses of all layers together.
- Needless when `test_what_a_model_is_compiled_with_is_private` of
  `tests/test_needless.py` fails.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties.compat.private import part_of

_FEATURE = "`summary` and `objective`"


@dataclass(frozen=True)
class CompiledLoss:
    """One of the losses that `compile` was given."""

    loss: Any
    weight: float | None
    output: str
    """The name of the output; empty where there is one only, or none is named."""


def compiled_losses(model: Any) -> list[CompiledLoss] | None:
    """The losses that a model is compiled with; None if Keras does not know them yet.

    Of a model without a graph Keras finds out in the first batch which loss belongs to
    which output.
    """
    compiled = part_of(model, "_compile_loss", _FEATURE)
    if compiled is None:
        return []
    if not compiled.built:
        inner = getattr(model, "_functional", None) or model  # of a Sequential
        outputs = getattr(inner, "_outputs_struct", None)
        if outputs is None:
            return _without_outputs(compiled)
        given = (part_of(compiled, n, _FEATURE) for n in ("_user_loss", *_WEIGHTS))
        compiled = type(compiled)(*given, output_names=compiled.output_names)
        compiled.build(outputs, outputs)
    found = part_of(compiled, "_flat_losses", _FEATURE)
    if len({entry.path for entry in found}) < 2:
        return [CompiledLoss(e.loss, e.loss_weights, "") for e in found]
    named = compiled.output_names is not None
    return [
        CompiledLoss(e.loss, e.loss_weights, e.name if named else _place(e.path))
        for e in found
    ]


_WEIGHTS = ("_user_loss_weights",)


def _place(path: tuple[Any, ...]) -> str:
    """Where an output without a name stands."""
    return f"output {'/'.join(map(str, path))}"


def _without_outputs(compiled: Any) -> list[CompiledLoss] | None:
    loss, weight = compiled._user_loss, compiled._user_loss_weights
    if keras.tree.is_nested(loss):
        return None
    return [CompiledLoss(keras.losses.get(loss), weight, "")]


def loss_function(loss: Any) -> Any:
    """The function that a loss of Keras wraps, or the loss itself."""
    return getattr(loss, "fn", loss)


def loss_name(loss: Any) -> str:
    """The name of a loss, or of a function that `compile` was given: never an alias."""
    function = loss_function(loss)
    plain = type(loss).__name__ == "LossFunctionWrapper"  # no class of its own
    if function is loss or not plain:
        function = loss
    return str(getattr(function, "name", None) or function.__name__)


def loss_arguments(loss: Any) -> dict[str, Any]:
    """What a loss of Keras hands to its function: its config leaves some out."""
    return dict(getattr(loss, "_fn_kwargs", {}))


@functools.cache
def slot_divides() -> bool:
    """Whether an activity slot divides by the batch size, as from Keras 3.14 on."""
    layer = keras.layers.Activation("linear", activity_regularizer=_Sum())
    layer(np.ones((2, 1), "float32"))
    return float(ops.convert_to_numpy(layer.losses[0])) < 2.0


class _Sum(keras.regularizers.Regularizer):
    def __call__(self, x: Any) -> Any:
        return ops.sum(x)


def own_losses(layer: Any) -> list[Any]:
    """What the layer itself has added to the loss in the present forward pass."""
    return list(part_of(layer, "_get_own_losses", _FEATURE)())
