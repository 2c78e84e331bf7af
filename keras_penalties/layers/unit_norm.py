"""A dense layer whose units each write along a direction of length one."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from keras_penalties.numerics import widened
from keras_penalties.registry import register
from keras_penalties.sums import length
from keras_penalties.typing import Tensor


@register
class UnitNormDense(keras.layers.Dense):
    """A `Dense` layer whose kernel has rows of Euclidean length one: a dictionary.

    `y = x·K + b` with `‖K_i‖ = 1` for each input unit i. After each step the rows are
    divided by their lengths (`keras.constraints.UnitNorm`). The gradient has no part
    along a row, so that an optimizer does not spend its steps, and Adam its memory, on
    what the division takes away.

    Args:
        units: The number of features to write to, 1 or more.
        **kwargs: Arguments of `keras.layers.Dense` except `kernel_constraint`.

    Shapes: (batch, ..., inputs) to (batch, ..., units).

    Example:
        >>> import keras, keras_penalties as kp
        >>> layer = kp.layers.UnitNormDense(2, kernel_initializer="ones")
        >>> [round(float(n), 4) for n in layer(keras.ops.ones((1, 1)))[0]]
        [0.7071, 0.7071]

    Raises:
        ValueError: if `units` is not a whole number of 1 or more.

    Source: Bricken et al., "Towards Monosemanticity: Decomposing Language Models With
    Dictionary Learning", Transformer Circuits, 2023.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        kwargs.pop("kernel_constraint", None)
        super().__init__(
            units, kernel_constraint=keras.constraints.UnitNorm(axis=1), **kwargs
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """What the units write, by rows of length one."""
        outputs = ops.matmul(inputs, unit_rows(self.kernel))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls(2, kernel_initializer="ones"), cls(3, kernel_initializer="ones")]


def unit_rows(kernel: Tensor) -> Tensor:
    """Each row divided by its length: the slope of which has no part along the row."""
    rows = widened(kernel)
    return ops.cast(ops.divide_no_nan(rows, length(rows, (1,))), kernel.dtype)
