"""Functions that work entry by entry: they make a constant out of a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np
from keras import layers, ops

from keras_penalties.compaction.channels import Values
from keras_penalties.typing import Tensor

Activation: TypeAlias = layers.Layer | Callable[[Tensor], Tensor] | None
"""An activation layer, a function, or None for the identity."""

_MIXING = {"softmax", "log_softmax", "sparsemax", "glu"}
_BY_ENTRY = {
    getattr(keras.activations, name)
    for name in dir(keras.activations)
    if name not in {"get", "serialize", "deserialize", *_MIXING}
    and not name.startswith("_")
}
_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)
_NAMES = """
    Abs Absolute Celu Elu Exp Gelu HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid
    Mish Negative Relu Relu6 Selu Sigmoid Silu Softplus Softsign Square Tanh
"""
OPERATIONS = tuple(_NAMES.split())
"""The operations of `keras.ops` that work entry by entry, by their classes' names."""


def works_by_entry(activation: Activation) -> bool:
    """Whether an activation is known to work entry by entry."""
    if isinstance(activation, layers.Layer):
        if type(activation) is layers.Activation:
            return works_by_entry(activation.activation)
        return type(activation) in _LAYERS
    return activation is None or activation in _BY_ENTRY


def activated(activation: Activation, constants: Values) -> Values:
    """The constants after an activation. A result that is not finite is varying."""
    if activation is None:
        return constants
    call = activation.call if isinstance(activation, layers.Layer) else activation
    varies = np.isnan(constants)
    row = ops.convert_to_tensor(np.where(varies, 0.0, constants)[None], "float32")
    values = ops.convert_to_numpy(call(row))[0].astype("float64")
    return np.where(varies | ~np.isfinite(values), np.nan, values)
