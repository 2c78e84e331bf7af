"""A dense layer that asks apart whether a unit is on, and how strongly."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.config import LayerFromSignature
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class GatedDense(LayerFromSignature):
    """A sparse encoder with one kernel for two questions: is a unit on, and how much.

    `gate = x·W + b_gate` and `y = [gate > 0]·max(0, x·(W·exp(r)) + b_magnitude)`. It
    returns y and `max(0, gate)`. No gradient reaches the gate from y: train the gate by
    a penalty on the second output, and by what it reconstructs alone.

    Args:
        units: Units of the code, 1 or more.
        kernel_initializer: Of W. Default `"glorot_uniform"`.

    Call arguments:
        inputs: The tensor to encode.
        return_gate: Return `max(0, gate)` beside y. Default False.

    Shapes: (batch, ..., features) to (batch, ..., units).

    Example:
        >>> import keras, keras_penalties as kp
        >>> layer = kp.layers.GatedDense(2, kernel_initializer="identity")
        >>> code, gate = layer(keras.ops.array([[3.0, -1.0]]), return_gate=True)
        >>> [float(y) for y in code[0]], [float(y) for y in gate[0]]
        ([3.0, 0.0], [3.0, 0.0])

    Raises:
        ValueError: if `units` is no whole number of 1 or more.

    Source: Rajamanoharan et al., "Improving Dictionary Learning with Gated Sparse
    Autoencoders", 2024.
    """

    def __init__(
        self, units: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = checks.integer("units", units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        """Create the kernel, the two biases, and the units' logarithms of scale."""
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(
            shape=shape, initializer=self.kernel_initializer, name="kernel"
        )
        self.gate_bias, self.magnitude_bias, self.log_scale = (
            self.add_weight(shape=(self.units,), initializer="zeros", name=name)
            for name in ("gate_bias", "magnitude_bias", "log_scale")
        )
        self.built = True

    def call(self, inputs: Tensor, return_gate: bool = False) -> Any:
        """The code, and if asked what the gate alone would give."""
        shared = ops.matmul(inputs, self.kernel)
        gate = shared + self.gate_bias
        magnitude = ops.relu(shared * ops.exp(self.log_scale) + self.magnitude_bias)
        code = ops.where(gate <= 0, ops.zeros_like(magnitude), magnitude)
        return (code, ops.relu(gate)) if return_gate else code

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's with `units` as the last axis."""
        return (*input_shape[:-1], self.units)

    def compute_output_spec(self, inputs: Any, return_gate: bool = False) -> Any:
        """One tensor, or two with the gate."""
        shape = self.compute_output_shape(inputs.shape)
        code, gate = (keras.KerasTensor(shape, self.compute_dtype) for _ in "ab")
        return (code, gate) if return_gate else code

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls(2, "ones"), cls(3, "identity")]
