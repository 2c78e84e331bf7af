"""Units of a code that never fire: a loss that brings them back."""

from __future__ import annotations

from typing import Any, Self

from keras import ops

from keras_penalties import checks
from keras_penalties.hosting.targets import LossTarget
from keras_penalties.hosting.term import Term
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.layers.top_k import kth_largest
from keras_penalties.numerics import widened
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike, as_strength
from keras_penalties.typing import Tensor


@register
class AuxK(PenaltyLayer):
    """Passes a code through, and has its dead units explain what the others miss.

    `strength·share·mean over rows of ½‖residual − ẑ·kernel‖²`. ẑ has the k largest
    pre-activations among the dead units, negative ones too, and zeros elsewhere; share
    is the number of dead units by k, at most 1. A unit is dead if no row has made it
    positive in more than `after` passes in training. The residual has no gradient.

    Args:
        strength: The multiplier, 0 or more, a schedule or a `Target`. Default 1.
        k: How many dead units explain a row, 1 or more. Default None: half as many as
            the residual has features.
        after: The number of passes without a positive entry after which a unit is
            dead, 0 or more. Default 1000.

    Call arguments:
        inputs: The code, (batch, units), which is passed through.
        pre_activation: What the code was made of, (batch, units).
        residual: What the code has left unexplained, (batch, features).
        kernel: The decoder's, (units, features).

    Shapes: (batch, units), unchanged.

    Example:
        >>> import keras, keras_penalties as kp
        >>> ops, layer = keras.ops, kp.layers.AuxK(k=1, after=0)
        >>> pre, kernel = ops.array([[2.0, -1.0]]), ops.ones((2, 3))
        >>> for _ in range(2):  # the second unit is dead in the second pass
        ...     code = layer(
        ...         ops.relu(pre), pre_activation=pre, residual=ops.ones((1, 3)),
        ...         kernel=kernel, training=True)
        >>> float(layer.losses[0])  # ½·3·(1 − (−1))²
        6.0

    Raises:
        ValueError: if an argument is out of range.

    Source: Gao et al., "Scaling and Evaluating Sparse Autoencoders", 2024.
    """

    def __init__(
        self,
        strength: StrengthLike = 1.0,
        k: int | None = None,
        after: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.strength = as_strength(strength, "loss")
        self.k = None if k is None else checks.integer("k", k)
        self.after = checks.integer("after", after, 0)
        self._declare([Term(self.name, self._unexplained, self.strength, LossTarget())])

    def build(self, input_shape: Any = None) -> None:
        """Create the count of passes since each unit fired."""
        super().build(input_shape)
        self.silent = self.add_weight(
            shape=(input_shape[-1],),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            name="silent",
        )

    @property
    def dead(self) -> Tensor:
        """Which units are dead, (units,), true or false."""
        return ops.convert_to_tensor(self.silent) > self.after

    def call(
        self,
        inputs: Tensor,
        pre_activation: Tensor,
        residual: Tensor,
        kernel: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        """The code, the loss of its dead units added."""
        if not self._losses_wanted():
            return inputs
        opened = self._opened_pass(training)
        dead = opened.memory.setdefault("dead", self.dead)
        value = self._unexplained(dead, pre_activation, residual, kernel)
        if opened.training:
            self._count(opened.memory, inputs)
        self._add_terms(opened, {self.terms[0]: value}, inputs)
        return inputs

    def _count(self, memory: dict[str, Any], code: Tensor) -> None:
        """One pass more for the units that no call of the pass has made positive."""
        before = memory.setdefault("silent", ops.convert_to_tensor(self.silent))
        axes = tuple(range(len(code.shape) - 1))
        fired = ops.any(ops.stop_gradient(code) > 0, axis=axes)
        fired = memory["fired"] = ops.logical_or(memory.get("fired", False), fired)
        self.silent.assign(ops.where(fired, ops.zeros_like(before), before + 1))

    def _unexplained(
        self, dead: Tensor, pre_activation: Tensor, residual: Tensor, kernel: Tensor
    ) -> Tensor:
        pre, residual, kernel = map(widened, (pre_activation, residual, kernel))
        k = residual.shape[-1] // 2 if self.k is None else self.k
        k = max(1, min(k, pre.shape[-1]))
        count = ops.sum(ops.cast(dead, pre.dtype))

        def explained() -> Tensor:
            """Half the squares that are left, with as many dead units as there are."""
            lowest = ops.full_like(pre, -float("inf"))
            candidates = ops.where(dead, ops.stop_gradient(pre), lowest)
            chosen = ops.logical_and(dead, candidates >= kth_largest(candidates, k))
            code = ops.where(chosen, pre, ops.zeros_like(pre))
            left = ops.matmul(code, kernel) - ops.stop_gradient(residual)
            rows = 0.5 * ops.sum(ops.square(left), axis=-1)
            number = ops.cast(ops.size(rows), rows.dtype)
            mean = ops.divide_no_nan(ops.sum(rows), number)
            return ops.minimum(count / k, 1.0) * mean

        # Most passes have no dead unit: these cost nothing.
        return ops.cond(count > 0, explained, lambda: 0.0 * ops.sum(pre[:0]))

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        """The code's."""
        return input_shape

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls(0.5, k=2, after=0), cls(k=1, after=0), cls(after=1)]

    def example_inputs(self, x: Any) -> dict[str, Any]:
        """The call's arguments, for the laws."""
        kernel = ops.eye(x.shape[-1], dtype=x.dtype)
        return {
            "inputs": x,
            "pre_activation": x - 0.5,
            "residual": x,
            "kernel": kernel,
        }
