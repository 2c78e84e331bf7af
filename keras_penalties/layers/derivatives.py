"""Derivatives of a layer's outputs with respect to its input, and their host."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.autodiff import jacobian, value_and_pullback
from keras_penalties.layers.base import PenaltyLayer, Term
from keras_penalties.numerics import widened
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


def pure(layer: Any, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """The layer as a function of its input, at its present weights and state.

    A layer that is called within a gradient leaks tracers on JAX and moves its batch
    statistics once more elsewhere. State is copied, since a call of the layer itself
    that follows moves it in its place.
    """
    check_single(layer, inputs)
    if not keras.backend.is_float_dtype(inputs.dtype):
        checks.refuse("inputs", "floats, to be differentiated by", inputs.dtype)
    with compat.full_precision():
        state = [(v, ops.convert_to_tensor(v)) for v in layer.trainable_variables]
        state += [(v, ops.copy(v)) for v in layer.non_trainable_variables]
    mask = compat.keras_mask(inputs)

    def call(x: Tensor) -> Tensor:
        x = compat.carry_mask(x, mask)
        # Not `stateless_call`, which leaves out masks, `training` and the casts.
        with keras.StatelessScope(state_mapping=state):
            return widened(layer(x))

    return call


def check_single(layer: Any, *tensors: Any) -> None:
    """Refuse a layer whose inputs or outputs are several."""
    if any(map(keras.tree.is_nested, tensors)):
        checks.refuse("layer", "one of one input and one output", layer)


@register
class Derivative(keras.layers.Layer):
    """The derivatives of a layer's outputs with respect to its input, as a tensor.

    `∂ᵏ outputs / ∂ inputsᵏ` of each sample, exactly, for an `AddLoss` to read, as a
    physics residual does. It costs a backward pass for each output, and for each input
    too from the second order on.

    Args:
        layer: The layer or model, from (batch, inputs) to (batch, outputs), where each
            sample's outputs depend on that sample only.
        order: k, 1 or more. Default 1.

    Shapes: (batch, inputs) to (batch, outputs, inputs), with one more axis of inputs
    for each higher order.

    Example:
        >>> import keras, keras_penalties as kp
        >>> square = keras.layers.Lambda(lambda x: x**2)
        >>> x = keras.ops.convert_to_tensor([[3.0]])
        >>> first, second = (kp.layers.Derivative(square, k)(x) for k in (1, 2))
        >>> float(first[0, 0, 0]), float(second[0, 0, 0, 0])
        (6.0, 2.0)

    Raises:
        ValueError: if an argument or a shape is another.
    """

    def __init__(self, layer: Any, order: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = checks.instance("layer", layer, keras.layers.Layer)
        self.order = checks.integer("order", order)

    def build(self, input_shape: Any) -> None:
        """Build the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """The derivatives of that order."""
        derivative, inputs = pure(self.layer, inputs), widened(inputs)
        shape = self.compute_output_shape(inputs.shape)[1:]
        for k in range(1, self.order + 1):
            derivative = _differentiated(derivative, shape[: k + 1])
        return ops.cast(derivative(inputs), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The outputs', with an axis of inputs for each order."""
        output_shape = tuple(self.layer.compute_output_shape(input_shape))
        shapes = tuple(input_shape), output_shape
        if not all(len(s) == 2 and isinstance(s[1], int) for s in shapes):
            wanted = "a layer from (batch, inputs) to (batch, outputs)"
            checks.refuse("layer", wanted, shapes)
        return (*output_shape, *[input_shape[1]] * self.order)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "order": self.order}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The layer that `get_config` described."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: the first and the second order."""
        return [cls(example_layer()), cls(example_layer("sigmoid"), order=2)]


def _differentiated(
    fn: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> Callable[[Tensor], Tensor]:
    """The derivative of `fn`, which has that shape for a sample, as a function."""

    def call(x: Tensor) -> Tensor:
        rows = jacobian(*value_and_pullback(fn, x), math.prod(shape[:-1]))
        return ops.reshape(rows, (-1, *shape))

    return call


def example_layer(activation: str = "tanh") -> Any:
    """A layer with a curvature, for the laws."""
    return keras.layers.Dense(2, activation=activation, kernel_initializer="ones")


class DerivativeLayer(PenaltyLayer):
    """Wraps a layer, gives its outputs, and hosts a penalty on some derivative of it.

    A subclass writes `derivative`. The wrapped layer runs as ever, its batch statistics
    and losses counted once; the derivative is of the same weights and state.
    """

    def __init__(
        self, layer: Any, penalty: Penalty, word: str, seed: Any, **kwargs: Any
    ) -> None:
        checks.instance("layer", layer, keras.layers.Layer)
        kwargs.setdefault("name", f"{layer.name}_{word}")
        super().__init__(**kwargs)
        self.layer, self.seed = layer, seed
        self.supports_masking = layer.supports_masking
        self.seed_generator = keras.random.SeedGenerator(seed)
        parts = penalty.parts()
        self._declare(
            Term(f"{self.name}_{p.name}" if len(parts) > 1 else self.name, p, "output")
            for p in parts
        )

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is penalised, one row for each sample, and the outputs.

        `fn` is the layer as a function, at the state before the call that gave
        `outputs`. Outputs of the forward pass that the derivative takes spare the
        loss's gradient a way back of its own.
        """
        raise NotImplementedError

    def build(self, input_shape: Any = None) -> None:
        """Build the layer, and the terms' weights."""
        super().build(input_shape)
        if not self.layer.built:
            self.layer.build(input_shape)

    def call(self, inputs: Tensor, *, training: bool | None = None) -> Any:
        """What the layer gives out, the penalty on its derivative added."""
        if not compat.losses_wanted():
            return self.layer(inputs)
        fn = pure(self.layer, inputs)
        return self._penalised(fn, inputs, self.layer(inputs), training)

    def _penalised(
        self,
        fn: Callable[[Tensor], Tensor],
        inputs: Tensor,
        outputs: Tensor,
        training: bool | None,
    ) -> Tensor:
        """The outputs, the penalty on the derivative at `inputs` added."""
        check_single(self.layer, outputs)
        target, same = self.derivative(fn, inputs, outputs)
        self._add_terms(dict.fromkeys(self.terms, target), inputs, training)
        return ops.cast(same, outputs.dtype)

    def _signs(self, shape: Any) -> Tensor:
        """Independent -1 and 1, the probes of Hutchinson's estimates."""
        draws = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return ops.where(draws < 0.5, -1.0, 1.0)

    def target_path(self, term: Term) -> str:
        """The derivative, named by the layer."""
        return f"{self.layer.name}/inputs"

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The layer's own."""
        return self.layer.compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, **self._arguments()}

    def _arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def _strength(self) -> Any:
        return self.terms[0].penalty.strength
