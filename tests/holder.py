"""A layer that holds one weight of any shape, in whose slot any penalty fits."""

from __future__ import annotations

from typing import Any

import keras

import keras_penalties as kp


@kp.register(package="tests")
class Holder(keras.layers.Layer):
    def __init__(self, penalty: Any, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.penalty, self.shape = kp.get(penalty), tuple(shape)

    def build(self, input_shape: Any) -> None:
        self.weight = self.add_weight(
            shape=self.shape, initializer="zeros", regularizer=self.penalty
        )

    def call(self, inputs: Any) -> Any:
        return inputs

    def get_config(self) -> dict[str, Any]:
        penalty = keras.saving.serialize_keras_object(self.penalty)
        own = {"penalty": penalty, "shape": self.shape}
        return {**super().get_config(), **own}


def values(model: keras.Model) -> list[float]:
    """Each holder's loss by itself: a sum would hide one that is lost."""
    holders = [layer for layer in model.layers if isinstance(layer, Holder)]
    return [float(keras.ops.convert_to_numpy(sum(h.losses))) for h in holders]
