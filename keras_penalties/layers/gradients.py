"""Penalties on the gradient of a layer's output by its input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, penalties
from keras_penalties.autodiff import value_and_pullback
from keras_penalties.layers.derivatives import (
    DerivativeLayer,
    check_single,
    example_layer,
    pure,
)
from keras_penalties.numerics import positive_part, widened
from keras_penalties.penalties.separable import L2
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.sums import length
from keras_penalties.typing import Tensor


@register
class InputGradient(DerivativeLayer):
    """Wraps a layer and penalises the gradient of its output by its input.

    The gradient of a sample's output, of the sum of them if there are several, has the
    sample's shape; an extensive penalty on it is divided by the batch size. So
    `InputGradient(discriminator, "l2(γ/2)")` is R1 where it is called on real samples,
    and R2 on generated ones; `"l1"` makes a model look at few inputs.

    Each sample's output must depend on that sample only, which batch normalization
    breaks in training. Its log has the layer's name, `<layer>_input_gradient`, or the
    one given here.

    Args:
        layer: The layer or model, of one input and one output.
        penalty: On the gradient: a penalty, its name such as `"l2(5.0)"`, or config.

    Shapes: the layer's own.

    Example:
        >>> import keras, keras_penalties as kp
        >>> linear = keras.layers.Dense(1, kernel_initializer="ones")
        >>> layer = kp.layers.InputGradient(linear, "l2(0.5)")
        >>> _ = layer(keras.ops.zeros((4, 3)))
        >>> float(layer.losses[0])  # ridge: 0.5·‖w‖²
        1.5

    Raises:
        ValueError: if the layer has several inputs or outputs, or whole numbers as
            input.

    Source: Drucker and LeCun, "Improving Generalization Performance Using Double
    Backpropagation", 1992; Mescheder, Geiger and Nowozin, "Which Training Methods for
    GANs Do Actually Converge?", 2018, for R1 and R2.
    """

    def __init__(self, layer: Any, penalty: Any, **kwargs: Any) -> None:
        self.penalty = penalties.get(penalty, "penalty")
        super().__init__(layer, self.penalty, "input_gradient", None, **kwargs)

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient, in the shape of the input."""
        outputs, pullback = value_and_pullback(fn, widened(inputs))
        return pullback(ops.ones_like(outputs)), outputs

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: R1, and a sum."""
        r1 = cls(example_layer(), "l2(0.5)")
        return [r1, cls(example_layer("sigmoid"), "l2(0.5) + l1(0.1)")]


@register
class GradientPenalty(DerivativeLayer):
    """Wraps a critic and holds the norm of its gradient at a radius, or below it.

    `strength·mean (‖∇D(x)‖ − radius)²`, one-sided: `strength·mean max(0, ‖∇D(x)‖ −
    radius)²`. If the layer is called on two batches of equal shape, real and generated,
    it is WGAN-GP: x is a random point between each pair, and the layer returns the
    outputs for both batches. Called on one batch it is at that batch.

    Each sample's output must depend on that sample only, which batch normalization
    breaks in training.

    Args:
        layer: The critic, of one input and one output.
        strength: The multiplier, 0 or more, a schedule or a `Target`. Default 10.
        radius: The norm to be held, 0 or more. Default 1.
        one_sided: Whether a smaller norm costs nothing. Default False.
        seed: Of the random places. Default None.

    Shapes: the critic's own, for one batch, or a list of two.

    Example:
        >>> import keras, keras_penalties as kp
        >>> critic = keras.layers.Dense(1, kernel_initializer="ones")
        >>> layer = kp.layers.GradientPenalty(critic, strength=10.0)
        >>> real, fake = layer(keras.ops.ones((2, 4)), keras.ops.zeros((2, 4)))
        >>> float(layer.losses[0])  # 10·(2 − 1)²
        10.0

    Raises:
        ValueError: if an argument is out of range, or the critic has several inputs or
            outputs.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017; Petzka,
    Fischer and Lukovnicov, "On the Regularization of Wasserstein GANs", 2018, for the
    one-sided form.
    """

    def __init__(
        self,
        layer: Any,
        strength: StrengthLike = 10.0,
        radius: float = 1.0,
        one_sided: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        penalty = L2(strength)
        super().__init__(layer, penalty, "gradient_penalty", seed, **kwargs)
        self.strength = penalty.strength
        self.radius = checks.non_negative("radius", radius)
        self.one_sided = checks.instance("one_sided", one_sided, bool)

    def call(
        self, inputs: Tensor, other: Tensor = None, *, training: bool | None = None
    ) -> Any:
        """The critic's output, or those for both batches, the penalty added."""
        if other is None:
            return super().call(inputs, training=training)
        outputs = self.layer(inputs)
        if self._losses_wanted():
            check_single(self.layer, inputs, other)
            between = self._between(inputs, other)
            fn = pure(self.layer, between)
            self._penalised(self._opened_pass(training), fn, between, outputs)
        return [outputs, self.layer(other)]

    def compute_output_shape(self, input_shape: Any, other_shape: Any = None) -> Any:
        """The critic's, for one batch, or a list of two."""
        shape = self.layer.compute_output_shape(input_shape)
        return shape if other_shape is None else [shape, shape]

    def _between(self, inputs: Tensor, other: Tensor) -> Tensor:
        """A place at random between each pair, whose floats may be of two kinds."""
        inputs, other = widened(inputs), widened(other)
        shape = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        share = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return ops.add(ops.multiply(share, inputs), ops.multiply(1.0 - share, other))

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Each sample's norm minus the radius, (batch, 1)."""
        outputs, pullback = value_and_pullback(fn, widened(inputs))
        slope = pullback(ops.ones_like(outputs))
        rows = ops.reshape(slope, (-1, math.prod(inputs.shape[1:])))
        excess = length(rows, (1,)) - self.radius
        return positive_part(excess) if self.one_sided else excess, outputs

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: both forms.

        A radius near the norm would leave a difference of half floats to compare.
        """
        one_sided = cls(example_layer("sigmoid"), 2.0, 0.1, True, seed=7)
        return [cls(example_layer()), one_sided]
