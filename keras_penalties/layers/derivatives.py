"""Derivatives of a layer's outputs with respect to its input, and their host."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.autodiff import jacobian, value_and_pullback
from keras_penalties.config import LayerFromSignature
from keras_penalties.hosting.state import Pass
from keras_penalties.hosting.targets import DerivativeTarget
from keras_penalties.hosting.term import terms_of
from keras_penalties.layers.wrapper import WrappingLayer
from keras_penalties.numerics import widened
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


def pure(layer: Any, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """The layer as a function of its input, at its present weights and state.

    A layer that is called within a gradient leaks tracers on JAX, and on other backends
    updates its batch statistics twice. State is copied, since a call of the layer
    itself that follows moves it in its place.
    """
    check_single(layer, inputs)
    if not keras.backend.is_float_dtype(inputs.dtype):
        checks.refuse("inputs", "floats, to be differentiated by", inputs.dtype)
    with compat.full_precision():
        state = [(v, v.value) for v in layer.trainable_variables]
        state += [(v, ops.copy(v)) for v in layer.non_trainable_variables]
    mask = compat.keras_mask(inputs)

    def call(x: Tensor) -> Tensor:
        x = compat.carry_mask(x, mask)
        # Not `stateless_call`, which leaves out masks, `training` and the casts.
        scope = keras.StatelessScope()
        for update in state:  # as it is: a `state_mapping` would be cast
            scope.add_update(update)
        with scope:
            return widened(layer(x))

    return call


def check_single(layer: Any, *tensors: Any) -> None:
    """Refuse a layer whose inputs or outputs are several."""
    if any(map(keras.tree.is_nested, tensors)):
        checks.refuse("layer", "one of one input and one output", layer)


@register
class Derivative(LayerFromSignature):
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
        ValueError: if `order` is below 1, or the layer does not map (batch, inputs) to
            (batch, outputs).
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


class DerivativeLayer(WrappingLayer):
    """Wraps a layer, gives its outputs, and hosts a penalty on some derivative of it.

    A subclass writes `derivative`. The wrapped layer runs as ever, its batch statistics
    and losses counted once; the derivative is of the same weights and state.
    """

    def __init__(
        self, layer: Any, penalty: Penalty, word: str, seed: Any, **kwargs: Any
    ) -> None:
        checks.instance("layer", layer, keras.layers.Layer)
        kwargs.setdefault("name", f"{layer.name}_{word}")
        super().__init__(layer, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        terms = terms_of(penalty, DerivativeTarget(), self.name)
        if len(terms) == 1:  # the layer's name says which derivative it is
            terms = [replace(terms[0], name=self.name)]
        self._declare(terms)

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is penalised, one row for each sample, and the outputs.

        `fn` is the layer as a function, at the state before the call that gave
        `outputs`. If the derivative's own forward pass gives the outputs, the loss's
        gradient needs no second backward pass.
        """
        raise NotImplementedError

    def call(self, inputs: Tensor, *, training: bool | None = None) -> Any:
        """What the layer gives out, the penalty on its derivative added."""
        if not self._losses_wanted():
            return self.layer(inputs)
        opened = self._opened_pass(training)
        fn = pure(self.layer, inputs)
        return self._penalised(opened, fn, inputs, self.layer(inputs))

    def _penalised(
        self,
        opened: Pass,
        fn: Callable[[Tensor], Tensor],
        inputs: Tensor,
        outputs: Tensor,
    ) -> Tensor:
        """The outputs, the penalty on the derivative at `inputs` added."""
        check_single(self.layer, outputs)
        target, same = self.derivative(fn, inputs, outputs)
        self._add_terms(opened, dict.fromkeys(self.terms, target), inputs)
        return ops.cast(same, outputs.dtype)

    def _signs(self, like: Tensor) -> Tensor:
        """Independent -1 and 1, the probes of Hutchinson's estimates."""
        seed = self.seed_generator
        draws = keras.random.uniform(ops.shape(like), dtype="float32", seed=seed)
        return ops.cast(ops.where(draws < 0.5, -1.0, 1.0), like.dtype)

    def save_own_variables(self, store: Any) -> None:
        """The weights, and the random numbers' state, which Keras would leave out."""
        super().save_own_variables(store)
        store["seed"] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """What `save_own_variables` wrote; an older file has no random state."""
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118
        if (seed := own.pop("seed", None)) is not None:
            self.seed_generator.state.assign(seed)
        super().load_own_variables(own)
