"""What a host says once, of a term that does not do what it seems to do."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import compat
from keras_penalties.penalties.base import Penalty

_BEYOND_0_AND_1 = {
    getattr(keras.activations, name)
    for name in (
        *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu"),
        *("silu", "mish", "softplus", "softsign", "tanh"),
    )
}
"""Activations that give numbers below 0 or above 1."""


def giver_of(tensor: Any) -> Any:
    """The layer that gave a symbolic tensor, or None for any other tensor."""
    if not keras.utils.is_keras_tensor(tensor):
        return None
    return compat.origin(tensor)[0].operation


def say_domain(penalty: Penalty, giver: Any) -> None:
    """Warn of a penalty on probabilities where a layer gives other numbers out.

    Args:
        penalty: What is put on the layer's output.
        giver: The layer, or None if no layer is known.
    """
    activation: Any = getattr(giver, "activation", None)
    for part in penalty.parts():
        if math.isfinite(part.domain[1]) and activation in _BEYOND_0_AND_1:
            warnings.warn(
                f"{type(part).__name__} is meant for numbers in (0, 1), and "
                f"'{giver.name}' gives others out: its activation is "
                f"`{activation.__name__}`. Take an activation such as `sigmoid`.",
                stacklevel=3,
            )


def frozen(layer: Any) -> str:
    """Why a weight of a layer does not move, as the end of a sentence."""
    if getattr(layer, "lora_enabled", False):
        return (
            "is frozen by `enable_lora`, and the adapters that move carry no term. "
            "Penalise 'lora_kernel_a' and 'lora_kernel_b' in its place"
        )
    return "is frozen"


def say_void(path: str, layer: Any) -> None:
    """Warn of adapters that are zero on both sides: no step moves them any more.

    So KerasHub's tasks come back from a file.
    """
    sides = [getattr(layer, f"lora_{name}", None) for name in _sides(layer)]
    if sides and not any(
        np.any(ops.convert_to_numpy(s)) for s in sides if s is not None
    ):
        warnings.warn(
            f"The term on '{path}' is void: both LoRA weights of '{layer.name}' are "
            "all zeros, as after some reloads, and no step of training moves them. "
            "Load their weights, or build the model anew and call `enable_lora`.",
            stacklevel=4,
        )


def _sides(layer: Any) -> list[str]:
    name = "embeddings" if hasattr(layer, "lora_embeddings_a") else "kernel"
    return [f"{name}_a", f"{name}_b"] if getattr(layer, "lora_enabled", False) else []
