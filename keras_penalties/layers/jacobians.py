"""Penalties on the Jacobian of a layer, and on its curvature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, penalties
from keras_penalties.autodiff import gradient, jacobian, value_and_pullback
from keras_penalties.layers.derivatives import DerivativeLayer, example_layer
from keras_penalties.numerics import widened
from keras_penalties.penalties.separable import L2
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.sums import length
from keras_penalties.typing import Tensor


@register
class Contractive(DerivativeLayer):
    """Wraps an encoder and penalises its Jacobian: `strength·mean ‖∂h/∂x‖²_F`.

    For a sigmoid or linear `keras.layers.Dense` the closed form is taken, at no cost.
    Otherwise it costs a backward pass for each of a sample's outputs, or, given
    `probes`, for each of these: Hutchinson's estimate, right in the mean.

    Each sample's outputs must depend on that sample only, which batch normalization
    breaks in training.

    Args:
        layer: The encoder, of one input and one output.
        strength: The multiplier, 0 or more, a schedule or a `Target`. Default 0.01.
        probes: The number of random directions for the estimate. Default None: the
            exact value.
        seed: The seed of the directions. Default None: a random seed.

    Shapes: the encoder's own.

    Example:
        >>> import keras, keras_penalties as kp
        >>> encoder = keras.layers.Dense(2, "sigmoid", kernel_initializer="ones")
        >>> layer = kp.layers.Contractive(encoder, strength=1.0)
        >>> _ = layer(keras.ops.zeros((4, 3)))
        >>> float(layer.losses[0])  # 2·3 entries of (½·½)²
        0.375

    Raises:
        ValueError: if an argument is out of range; if the encoder has several inputs or
            outputs; if, without `probes`, a sample's number of outputs is not known.

    Source: Rifai et al., "Contractive Auto-Encoders: Explicit Invariance During Feature
    Extraction", 2011; Hutchinson, "A Stochastic Estimator of the Trace of the Influence
    Matrix for Laplacian Smoothing Splines", 1989.
    """

    def __init__(
        self,
        layer: Any,
        strength: StrengthLike = 0.01,
        probes: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        penalty = L2(strength)
        super().__init__(layer, penalty, "contractive", seed, **kwargs)
        self.strength = penalty.strength
        self.probes = None if probes is None else checks.integer("probes", probes)

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The Jacobian, or what has its norm, in the mean at least."""
        slopes = _dense_slopes(self.layer, outputs)
        if slopes is not None:
            return slopes * length(widened(self.layer.kernel), (0,)), outputs
        size = _size(outputs) if self.probes is None else 0
        outputs, pullback = value_and_pullback(fn, widened(inputs))
        if self.probes is None:
            return jacobian(outputs, pullback, size), outputs
        scale = 1.0 / math.sqrt(self.probes)
        probes = [scale * self._signs(outputs) for _ in range(self.probes)]
        return ops.stack([pullback(v) for v in probes], axis=1), outputs

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: the closed form, exact, an estimate."""
        dense = keras.layers.Dense(2, "sigmoid", kernel_initializer="ones")
        estimate = cls(example_layer(), 2.0, probes=1, seed=7)
        return [cls(dense, 0.5), cls(example_layer(), 0.5), estimate]


def _dense_slopes(layer: Any, outputs: Tensor) -> Tensor | None:
    """The slope of each output by its own sum, for a layer where it is so simple."""
    if type(layer) is not keras.layers.Dense:
        return None
    h = widened(outputs)
    if layer.activation is keras.activations.linear:
        return ops.ones_like(h)
    if layer.activation is keras.activations.sigmoid:
        return h * (1.0 - h)
    return None


def _size(x: Tensor) -> int:
    if None in x.shape[1:]:
        wanted = "a number, for a layer whose number of outputs is not known"
        checks.refuse("probes", wanted, None)
    return math.prod(x.shape[1:])


@register
class HessianTrace(DerivativeLayer):
    """Wraps a layer and penalises its curvature: the trace of the Hessian by its input.

    Of each sample's output, of the sum of them if there are several, the trace
    `Σᵢ ∂²f/∂xᵢ²` is one number, and an extensive penalty on it is divided by the batch
    size. It costs a backward pass for each entry of a sample, or, given `probes`, for
    each of these: Hutchinson's estimate `vᵀHv`. That is right in the mean, but a
    penalty such as L2 of it is too high by the estimate's variance.

    Args:
        layer: The layer or model, of one input and one output. One that is linear in
            pieces, as with `relu`, has no curvature, and nothing is penalised.
        penalty: On the traces: a penalty, its name such as `"l2(0.1)"`, or config.
        probes: How many random directions the estimate takes. Default None: exact.
        seed: Of the directions. Default None.

    Shapes: the layer's own.

    Example:
        >>> import keras, keras_penalties as kp
        >>> square = keras.layers.Lambda(lambda x: keras.ops.sum(x**2, axis=-1))
        >>> layer = kp.layers.HessianTrace(square, "l1(1.0)")
        >>> _ = layer(keras.ops.ones((4, 3)))
        >>> float(layer.losses[0])
        6.0

    Raises:
        ValueError: if an argument is out of range; if the layer has several inputs or
            outputs; if, without `probes`, a sample's number of entries is not known.

    Source: Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for
    Laplacian Smoothing Splines", 1989.
    """

    def __init__(
        self,
        layer: Any,
        penalty: Any,
        probes: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.penalty = penalties.get(penalty, "penalty")
        super().__init__(layer, self.penalty, "hessian_trace", seed, **kwargs)
        self.probes = None if probes is None else checks.integer("probes", probes)

    def derivative(
        self, fn: Callable[[Tensor], Tensor], inputs: Tensor, outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The traces, (batch, 1)."""
        x = widened(inputs)
        size = _size(inputs) if self.probes is None else 0
        slope, pullback = value_and_pullback(
            lambda x: gradient(lambda x: ops.sum(fn(x)), x), x
        )
        if self.probes is None:
            hessian = ops.reshape(jacobian(slope, pullback, size), (-1, size, size))
            traces = ops.diagonal(hessian, axis1=1, axis2=2)
            return ops.sum(traces, 1, keepdims=True), outputs
        probes = [self._signs(x) for _ in range(self.probes)]
        mean = sum(v * pullback(v) for v in probes) / self.probes
        traces = ops.sum(mean, tuple(range(1, len(x.shape))))
        return ops.expand_dims(traces, 1), outputs

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: exact, and an estimate."""
        estimate = cls(example_layer("sigmoid"), "l1(0.5)", probes=1, seed=7)
        return [cls(example_layer(), "l2(0.5)"), estimate]
