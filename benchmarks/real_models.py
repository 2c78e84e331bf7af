"""Models that people train, without and with a penalty on every kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_penalties as kp

STRENGTH = 1e-5
NONE, KERAS = "no penalty", "Keras' L2"
KERNELS = r"(.*_)?kernel|embeddings"
"""The weights that the penalty stands on: no biases, no scales, no statistics."""


def small_images() -> keras.Model:
    """In place of the two image models where only the benchmark itself is tried."""
    images = keras.Input((16, 16, 3))
    x = keras.layers.DepthwiseConv2D(3)(keras.layers.Conv2D(4, 3)(images))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(10)(x))


def mobilenet(small: bool) -> keras.Model:
    """MobileNetV2 on images of 64 by 64, 10 classes."""
    if small:
        return small_images()
    return keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=10)


def resnet(small: bool) -> keras.Model:
    """ResNet50 on images of 64 by 64, 10 classes."""
    if small:
        return small_images()
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classes=10
    )


def bert(small: bool) -> keras.Model:
    """A classifier on a BERT of four layers, built from its config."""
    import keras_hub

    width = 16 if small else 256
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=100 if small else 8000,
        num_layers=1 if small else 4,
        num_heads=4,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=64,
    )
    classes = keras.layers.Dense(10)(backbone.output["pooled_output"])
    return keras.Model(backbone.input, classes)


def tagger(small: bool) -> keras.Model:
    """Words in, a tag for each word out, by two bidirectional LSTMs."""
    width = 8 if small else 128
    words = keras.Input((32,), dtype="int32")
    x = keras.layers.Embedding(100 if small else 8000, width)(words)
    for _ in range(2):
        lstm = keras.layers.LSTM(width, return_sequences=True)
        x = keras.layers.Bidirectional(lstm)(x)
    return keras.Model(words, keras.layers.Dense(10)(x))


MODELS: dict[str, tuple[Callable[[bool], keras.Model], int]] = {
    "MobileNetV2": (mobilenet, 16),
    "ResNet50, 64 by 64": (resnet, 16),
    "BERT, four layers": (bert, 16),
    "LSTM tagger": (tagger, 32),
}
"""How each model is made, and the size of its batches."""


def ways() -> dict[str, Callable[[keras.Model], keras.Model]]:
    """How a model gets a penalty on every kernel."""
    l1, l2 = kp.penalties.L1(STRENGTH), kp.penalties.L2(STRENGTH)
    return {
        NONE: lambda model: model,
        "L1 by penalize": lambda model: kp.penalize(model, {KERNELS: l1}),
        "L2 by penalize": lambda model: kp.penalize(model, {KERNELS: l2}),
        "L2 in slots": lambda model: in_slots(model, l2),
        KERAS: lambda model: in_slots(model, keras.regularizers.L2(STRENGTH)),
    }


def in_slots(model: keras.Model, penalty: Any) -> keras.Model:
    """The model with the penalty in the slot of each kernel.

    A built layer has handed its slot on to the weight, from where Keras reads it.
    """
    for weight in model.trainable_weights:
        if re.fullmatch(KERNELS, weight.name):
            weight.regularizer = penalty
    return model


def batch_for(model: keras.Model, size: int) -> tuple[Any, Any]:
    """Inputs and labels as the model takes them, from a fixed seed."""
    rng = np.random.default_rng(0)

    def entry(tensor: Any) -> np.ndarray:
        shape = (size, *(n or 64 for n in tensor.shape[1:]))
        if "int" in tensor.dtype:
            return rng.integers(2, size=shape).astype("int32")
        return rng.standard_normal(shape).astype("float32")

    x = keras.tree.map_structure(entry, model.input)
    shape = (size, *model.output.shape[1:-1])
    return x, rng.integers(10, size=shape).astype("int32")
