"""Smoothness where a model is the least smooth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.autodiff import gradient
from keras_penalties.layers.derivatives import DerivativeLayer, example_layer
from keras_penalties.numerics import norm, widened
from keras_penalties.penalties.separable import L1
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register
class VirtualAdversarial(DerivativeLayer):
    """Wraps a classifier and asks for the same classes near each sample, labels or not.

    `strength·mean KL(p(x) ‖ p(x + r))`, where r has the length `radius` and the
    direction that changes p the most, found by one step of the power method from a
    random start. p(x) and r count as constants. Virtual adversarial training.

    Each sample's output must depend on that sample only, which batch normalization
    breaks in training.

    Args:
        layer: The classifier, of one input, that gives out logits.
        strength: The multiplier, 0 or more, a schedule or a `Target`. Default 1.
        radius: The length of r in the input's unit, above 0. Default 1.
        step: The length of the step to find r by, above 0. Default 0.01.
        seed: The seed of the random starts. Default None: a random seed.

    Shapes: the classifier's own, (batch, ..., classes) with two classes or more.

    Example:
        >>> import keras, keras_penalties as kp
        >>> classifier = keras.layers.Dense(2, kernel_initializer="identity")
        >>> layer = kp.layers.VirtualAdversarial(classifier, radius=1.0)
        >>> _ = layer(keras.ops.zeros((4, 2)))
        >>> round(float(layer.losses[0]), 3)  # −log 2 − ½·log p·(1 − p) at logit √2
        0.232

    Raises:
        ValueError: if an argument is out of range, or the classifier has several
            inputs or outputs, or one class only.

    Source: Miyato et al., "Virtual Adversarial Training: A Regularization Method for
    Supervised and Semi-Supervised Learning", 2018.
    """

    def __init__(
        self,
        layer: Any,
        strength: StrengthLike = 1.0,
        radius: float = 1.0,
        step: float = 0.01,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        penalty = L1(strength)
        super().__init__(layer, penalty, "virtual_adversarial", seed, **kwargs)
        self.strength = penalty.strength
        self.radius = checks.positive("radius", radius)
        self.step = checks.positive("step", step)

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The divergences, one for each of the classifier's decisions."""
        if len(outputs.shape) < 2 or outputs.shape[-1] == 1:
            checks.refuse("layer", "two logits or more in the last axis", outputs.shape)
        x = widened(inputs)
        log_p = ops.stop_gradient(ops.log_softmax(fn(x), axis=-1))

        def divergence(r: Tensor) -> Tensor:
            log_q = ops.log_softmax(fn(x + r), axis=-1)
            return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1, keepdims=True)

        start = keras.random.normal(ops.shape(x), seed=self.seed_generator)
        start = self.step * _unit(ops.cast(start, x.dtype))
        slope = gradient(lambda r: ops.sum(divergence(r)), start)
        return divergence(ops.stop_gradient(self.radius * _unit(slope))), outputs

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: alike classes, and different ones."""
        start = keras.initializers.RandomNormal(seed=0)
        classifier = keras.layers.Dense(3, kernel_initializer=start)
        return [
            cls(example_layer(), 0.5),
            cls(classifier, 1.0, radius=2.0, step=0.5, seed=7),
        ]


def _unit(x: Tensor) -> Tensor:
    """Each sample at length 1, or 0 where it is."""
    shape = (-1, *x.shape[1:])
    rows = ops.reshape(x, (-1, math.prod(x.shape[1:])))
    length = norm(rows, axis=1, keepdims=True)
    rows = rows / ops.where(length > 0, length, ops.ones_like(length))
    return ops.reshape(rows, shape)
