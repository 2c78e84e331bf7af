"""The nets of `smaller_nets.py`, of any widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers


def lenet(widths: Sequence[int]) -> keras.Model:
    """LeNet-300-100 where these are the widths."""
    hidden = [layers.Dense(n, "relu") for n in widths]
    shape = keras.Input((28, 28, 1)), layers.Flatten()
    return keras.Sequential([*shape, *hidden, layers.Dense(10)])


def residual(widths: Sequence[int]) -> keras.Model:
    """Three stages; each has channels in a shortcut, and others inside its block."""
    x = inputs = keras.Input((28, 28, 1))

    def normal(x: Any, n: int, *size: Any) -> Any:
        x = layers.Conv2D(n, *(size or (3, 1, "same")), use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    for stage, (outer, inner) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        x = layers.MaxPooling2D()(x) if stage else x
        x = layers.ReLU()(normal(x, outer, *(() if stage else (5, 2, "valid"))))
        y = normal(layers.ReLU()(normal(x, inner)), outer)
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def weighted(model: keras.Model) -> list[Any]:
    """The layers with weights, in their order."""
    return [layer for layer in model.layers if layer.weights]


def kernels(model: keras.Model) -> list[Any]:
    """The kernels, in their order."""
    return [layer.kernel for layer in weighted(model) if hasattr(layer, "kernel")]
