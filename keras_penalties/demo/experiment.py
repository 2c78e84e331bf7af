"""One autoencoder of handwritten digits, trained without and with penalties."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_penalties.penalize import penalize

PENALTIES: dict[Any, Any] = {
    # All weights stay small.
    ".*/kernel": "l2(1e-4)",
    # A hidden unit draws: it adds ink to the picture, and takes none away.
    "decoder/kernel": "non_negative(0.1)",
    # The mean activation of each hidden unit is near 0.1: a digit has few active units.
    "encoder": {"outputs": "kl_sparsity(1.0, rate=0.1)"},
}

STEPS = 50
"""Full-batch steps in one epoch."""


def autoencoder() -> keras.Model:
    """64 pixels to 64 units and back: plain Keras, the same weights at each call."""
    inputs = keras.Input((64,))
    code = keras.layers.Dense(
        64,
        activation="sigmoid",
        kernel_initializer=keras.initializers.GlorotUniform(seed=0),
        # The hidden units start near a mean activation of 0.1.
        bias_initializer=keras.initializers.Constant(math.log(0.1 / 0.9)),
        name="encoder",
    )(inputs)
    outputs = keras.layers.Dense(
        64,
        activation="sigmoid",
        kernel_initializer=keras.initializers.GlorotUniform(seed=1),
        name="decoder",
    )(code)
    return keras.Model(inputs, outputs)


def train(model: keras.Model, x: np.ndarray, epochs: int) -> Any:
    """Plain `compile` and `fit`. The learning rate falls to a hundredth."""
    schedule = keras.optimizers.schedules.CosineDecay(0.03, epochs * STEPS, alpha=0.01)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss="half_sum_squared_error",
        # The torch backend allows one step per execution only.
        steps_per_execution=1 if keras.backend.backend() == "torch" else STEPS,
    )
    return model.fit(FullBatches(x, STEPS), epochs=epochs, verbose=0)


def both(x: np.ndarray, epochs: int) -> list[tuple[keras.Model, Any]]:
    """The model and what `fit` returned: first without penalties, then with them."""
    plain, penalized = autoencoder(), penalize(autoencoder(), PENALTIES)
    return [(model, train(model, x, epochs)) for model in (plain, penalized)]


class FullBatches(keras.utils.PyDataset):
    """The whole data as one batch, `steps` times an epoch.

    `fit(x, x, epochs=1000)` of one step each would spend most of its time between
    epochs.
    """

    def __init__(self, x: np.ndarray, steps: int) -> None:
        super().__init__()
        self.x, self.steps = x, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x, self.x
