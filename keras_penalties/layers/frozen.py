"""A part of a model that training leaves as it is."""

from __future__ import annotations

from typing import Any, Self

import keras

from keras_penalties import checks
from keras_penalties.config import LayerFromSignature
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Frozen(LayerFromSignature):
    """Runs a layer or a model in inference, whatever `fit` and `trainable` say.

    Its weights are not trained, dropout is off, and batch normalization neither uses
    nor moves the batch's statistics. `teacher(x, training=False)` alone does not do
    that: within a functional model Keras lets `fit` decide. A gradient passes through
    the layer to its inputs. For a teacher in distillation, or a fixed network whose
    features a loss compares.

    Args:
        layer: The layer or model. Its weights are frozen from now on: in Keras a weight
            is trained in every model that holds it, or in none.

    Shapes: the layer's own.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> teacher = keras.Sequential([keras.layers.Dropout(0.5)])
        >>> frozen = kp.layers.Frozen(teacher)
        >>> frozen(np.ones((1, 3)), training=True).shape[-1], frozen.trainable
        (3, False)

    Raises:
        ValueError: if `layer` is no Keras layer.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        checks.instance("layer", layer, keras.layers.Layer)
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.pop("trainable", None)
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.layer = layer
        self.layer.trainable = False
        self.supports_masking = layer.supports_masking

    @property
    def trainable(self) -> bool:
        """False. To set it does nothing, so that a whole model can be unfrozen."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None: ...

    def build(self, input_shape: Any) -> None:
        """Build the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.trainable = False  # also the weights that are new
        self.built = True

    def call(self, inputs: Tensor) -> Any:
        """What the layer gives out in inference."""
        return self.layer(inputs, training=False)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The layer's own."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The layer's own."""
        return self.layer.compute_mask(inputs, mask)

    @classmethod
    def examples(cls) -> list[Self]:
        """Dropout, which would be seen."""
        return [cls(keras.layers.Dropout(0.5)), cls(keras.layers.Dense(2))]
