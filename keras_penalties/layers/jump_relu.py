"""A ReLU that jumps: what is below a trained threshold is zero."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.hosting.targets import LossTarget
from keras_penalties.hosting.term import Term
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.masks import sum_and_count
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike, as_strength
from keras_penalties.typing import Tensor


@register
class JumpReLU(PenaltyLayer):
    """Zeros what is not above a threshold of its own unit, which training moves.

    `y_i = x_i` where `x_i > θ_i`, else 0, and if asked the loss `strength·mean over
    rows of Σ [x_i > θ_i]`, the number of active units, L0. Neither has a slope in θ.
    The gradient of a smoothed form stands in for the slope (a straight-through
    estimate): with `r = 1/bandwidth` where `|x_i − θ_i| < bandwidth/2` and else 0, that
    gradient is `−θ_i·r` for y and `−r` for L0. L0 moves the thresholds alone.

    Args:
        strength: Of L0: 0 or more, a schedule, or a `Target` for L0 itself. Default
            None: no loss is added.
        initial_threshold: Where each θ starts, 0 or more. Default 0.01.
        bandwidth: The width of the smoothing, above 0, on the scale of the inputs.
            Default 0.05.
        smooth: Add `Σ tanh(smooth·y_i)` in place of L0, above 0: that one has a slope
            in the inputs too. Default None: L0.

    Shapes: (batch, ..., units), unchanged. All axes except the last one count as rows.

    Example:
        >>> import keras, keras_penalties as kp
        >>> layer = kp.layers.JumpReLU(strength=0.1, initial_threshold=1.0)
        >>> [float(y) for y in layer(keras.ops.array([[0.5, 2.0, 3.0]]))[0]]
        [0.0, 2.0, 3.0]
        >>> round(float(layer.losses[0]), 4)
        0.2

    Raises:
        ValueError: if an argument is out of range.

    Source: Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with
    JumpReLU Sparse Autoencoders", 2024; Conerly et al., "Dictionary Learning
    Optimization Techniques", Transformer Circuits, January 2025, for tanh.
    """

    def __init__(
        self,
        strength: StrengthLike | None = None,
        initial_threshold: float = 0.01,
        bandwidth: float = 0.05,
        smooth: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.strength = None if strength is None else as_strength(strength, "loss")
        self.initial_threshold = checks.non_negative(
            "initial_threshold", initial_threshold
        )
        self.bandwidth = checks.positive("bandwidth", bandwidth)
        self.smooth = None if smooth is None else checks.positive("smooth", smooth)
        if self.strength is not None:
            name = f"{self.name}_{'l0' if smooth is None else 'tanh'}"
            self._declare([Term(name, self._active, self.strength, LossTarget())])

    def build(self, input_shape: Any = None) -> None:
        """Create a threshold for each unit, in full precision."""
        super().build(input_shape)
        self.threshold = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_threshold),
            constraint="non_neg",
            dtype="float64" if self.variable_dtype == "float64" else "float32",
            autocast=False,
            name="threshold",
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """The input where it is above the thresholds, the number of these added."""
        threshold = ops.cast(self.threshold, inputs.dtype)
        above = inputs > threshold
        # What is no number stays none: a comparison would hide it.
        kept = ops.where(inputs <= threshold, ops.zeros_like(inputs), inputs)
        near = self._near(inputs, threshold)
        outputs = kept - ops.stop_gradient(threshold * near) * _slope(threshold)
        if self.terms and self._losses_wanted():
            mask = compat.keras_mask(inputs)
            active = ops.cast(above, inputs.dtype)
            if self.smooth is None:
                active = active - ops.stop_gradient(near) * _slope(threshold)
            else:
                active = ops.tanh(self.smooth * outputs)
            opened = self._opened_pass(training)
            value = self._active(active, mask)
            self._add_terms(opened, {self.terms[0]: value}, inputs)
        return outputs

    def _near(self, inputs: Tensor, threshold: Tensor) -> Tensor:
        distance = ops.abs(inputs - threshold)
        inside = ops.cast(distance < self.bandwidth / 2.0, inputs.dtype)
        return inside / self.bandwidth

    @staticmethod
    def _active(active: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean over the rows that no mask hides."""
        total, count = sum_and_count(ops.cast(active, "float32"), mask)
        return ops.divide_no_nan(ops.sum(total), count)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: with L0, and with tanh."""
        return [cls(0.5, 0.4, 0.5), cls(0.3, 0.4, 0.1), cls(0.5, smooth=4.0)]


def _slope(threshold: Tensor) -> Tensor:
    """Zero, with the slope 1 in the threshold."""
    return threshold - ops.stop_gradient(threshold)
