"""Penalties on what flows through a model."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, compat, penalties
from keras_penalties.hosting.cautions import giver_of, say_domain
from keras_penalties.hosting.state import Pass
from keras_penalties.hosting.targets import OutputTarget
from keras_penalties.hosting.term import Term, terms_of
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.masks import sum_and_count
from keras_penalties.numerics import widened
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.separable import L1, L2
from keras_penalties.registry import register
from keras_penalties.strengths import LinearRamp, Target
from keras_penalties.typing import Tensor


@register
class ActivityPenalty(PenaltyLayer):
    """Passes its input through and adds a penalty on it to the loss.

    An extensive penalty is divided by the batch size, a statistic of the batch never
    is: the strength means the same at every batch size and in every Keras release.
    Each part of a sum is logged by itself, as `<layer>_<penalty>`.

    Args:
        penalty: A penalty, its name such as `"kl_sparsity(3.0, rate=0.05)"`, or config.
        momentum: For a penalty of the batch's mean, such as `KLSparsity`: take in
            training the running mean over batches, which small batches need. In [0, 1).
            Default None: each batch by itself. In an evaluation each batch always
            counts by itself.

    Shapes: any, unchanged.

    Example:
        >>> import keras, keras_penalties as kp
        >>> layer = kp.layers.ActivityPenalty(kp.penalties.L1(0.1), name="code")
        >>> _ = layer(keras.ops.ones((4, 3)))
        >>> [round(float(loss), 4) for loss in layer.losses]
        [0.3]

    Raises:
        ValueError: if `penalty` is not a penalty, or if `momentum` is given for a
            penalty that does not depend on the batch's mean.
    """

    def __init__(
        self, penalty: Any, momentum: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.penalty = penalties.get(penalty, "penalty")
        self.momentum = _checked_momentum(momentum, self.penalty)
        self._declare(terms_of(self.penalty, OutputTarget(), self.name))

    def build(self, input_shape: Any = None) -> None:
        """Create the terms' weights, and the running mean where there is one."""
        super().build(input_shape)
        if self.momentum is not None:
            # The last entry sums the weights of the mean.
            start = [0.0] * (input_shape[-1] + 1)
            self.running_mean = self._weight("running_mean", start, self.sums.dtype)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """The input, its terms added to the loss."""
        if self._losses_wanted():
            opened = self._opened_pass(training)
            means = inputs
            if opened.training and self.momentum is not None:
                means = self._smoothed_mean(opened, inputs, self.momentum)
            targets = {t: means if _of_the_mean(t) else inputs for t in self.terms}
            self._add_terms(opened, targets, inputs)
        return inputs

    def _smoothed_mean(self, opened: Pass, x: Tensor, momentum: float) -> Tensor:
        """The running mean as a batch of one, with the gradient of the batch's mean.

        The running mean moves once in a pass, by the mean over all of the pass's calls.
        """
        total, count = sum_and_count(widened(x), compat.keras_mask(x))
        mean = ops.cast(ops.divide_no_nan(total, count), self.running_mean.dtype)
        before = opened.memory.setdefault("mean", ops.copy(self.running_mean))
        total = opened.memory["total"] = opened.memory.get("total", 0.0) + total
        count = opened.memory["count"] = opened.memory.get("count", 0.0) + count
        entry = ops.append(ops.divide_no_nan(total, count), 1.0)
        entry = ops.stop_gradient(ops.cast(entry, before.dtype))
        moved = momentum * before + (1.0 - momentum) * entry
        running = ops.where(count > 0, moved, before)
        self.running_mean.assign(running)
        found = ops.divide_no_nan(running[:-1], running[-1])
        return ops.expand_dims(mean + ops.stop_gradient(found - mean), 0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The input's. Here, where a model is made, the layer before is known."""
        say_domain(self.penalty, giver_of(inputs))
        return super().compute_output_spec(inputs, *args, **kwargs)

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: a sum, a running mean, moving strengths."""
        moving = L1(LinearRamp(1.0, 2.0, 4)) + L2(Target(0.1))
        return [
            cls("l1(0.1) + l2(0.2)"),
            cls("kl_sparsity(0.5)", momentum=0.9),
            cls(moving),
        ]


def _of_the_mean(term: Term) -> bool:
    return isinstance(term.penalty, Penalty) and term.penalty.statistic == "mean"


def _checked_momentum(momentum: Any, penalty: Penalty) -> float | None:
    if momentum is None:
        return None
    if not any(part.statistic == "mean" for part in penalty.parts()):
        checks.refuse(
            "momentum",
            f"None: {penalty!r} is not a function of a batch's mean",
            momentum,
        )
    return checks.number("momentum", momentum, 0.0, 1.0, open_high=True)


@register
class BiasUnit(keras.layers.Layer):
    """Appends a unit that is always one, as textbooks write the bias: `[x, 1]`.

    A kernel that reads it holds the bias as its last row, where a weight penalty on the
    kernel reaches it.

    Shapes: (batch, ..., features) to (batch, ..., features + 1).

    Example:
        >>> import keras, keras_penalties as kp
        >>> kp.layers.BiasUnit()(keras.ops.zeros((2, 3))).shape[-1]
        4
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Nothing: there are no weights."""
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """The input with a column of ones."""
        return ops.concatenate([inputs, ops.ones_like(inputs[..., :1])], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One feature more."""
        return (*input_shape[:-1], None if (n := input_shape[-1]) is None else n + 1)

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls()]
