"""A strength that is trained with the weights: a balance between losses."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from keras import ops

from keras_penalties import checks
from keras_penalties.registry import register
from keras_penalties.strengths.base import Host, Strength
from keras_penalties.typing import Tensor


@register
class Learned(Strength):
    """A strength that is trained with the weights, to balance losses by their noise.

    With it a loss L adds, in place of `strength·L`,

    `strength·L − ½·log(strength)`,

    whose minimum is at `strength = 1 / (2·L)`: there each loss counts by its own size,
    whatever its unit. It is homoscedastic uncertainty. With `strength = 1 / (2σ²)` the
    sum is `L / (2σ²) + log(σ)` but for a constant: for a mean squared error, minus the
    log-likelihood of errors of variance σ². With `strength = 1 / σ²` it is the same for
    a cross-entropy, about as if the logits were divided by σ².

    It is for `AddLoss`, for two losses or more. The layer owns `log(strength)` as a
    trainable weight, saved with the model; `<term>_strength` is in the logs, and the
    term itself, with the logarithm in it, may be negative. Weight decay would move the
    strength towards 1. Exclude it:
    `optimizer.exclude_from_weight_decay(var_names=["log_strength"])`.

    L must stay above 0. As L falls to 0, as when a network memorises its data, the
    strength grows without end, and a loss that can be negative, as a density's
    logarithm can, has no minimum. So penalties, whose least value is 0, refuse it.

    Args:
        initial: The strength to start from, above 0, or `"auto"` for `1 / (2·L)` of the
            first batch of training in which L is above 0: then no loss has to travel
            far to its balance, whatever its unit. Default 1.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> x, y_true = keras.Input((1,)), keras.Input((1,))
        >>> guess = keras.layers.Rescaling(1.0)(x)  # no weights: the error stays
        >>> balanced = kp.layers.AddLoss("mean_squared_error", kp.strengths.Learned())
        >>> model = keras.Model([x, y_true], balanced(guess, y_true=y_true))
        >>> model.compile(keras.optimizers.SGD(0.5))
        >>> data = [np.zeros((400, 1)), np.full((400, 1), 5.0)]  # L = 25
        >>> _ = model.fit(data, batch_size=4, verbose=0)
        >>> round(kp.terms(model)[0].strength, 4)
        0.02

    Raises:
        ValueError: if `initial` is not above 0.

    Source: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh
    Losses for Scene Geometry and Semantics", 2018.
    """

    counts_steps = False
    trained_as = "log_strength"

    def __init__(self, initial: float | Literal["auto"] = 1.0) -> None:
        self.initial: float | Literal["auto"] = (
            "auto" if initial == "auto" else checks.positive("initial", initial)
        )

    @property
    def adapts(self) -> bool:  # type: ignore[override]
        """Until the first batch, if the start is to be found."""
        return self.initial == "auto"

    @property
    def initial_state(self) -> float:
        """The logarithm of a start that is still to be found: of a strength of 0."""
        return -math.inf if self.initial == "auto" else 0.0

    @property
    def initial_weight(self) -> float:
        """`log(initial)`: a logarithm may take any value."""
        return 0.0 if self.initial == "auto" else math.log(self.initial)

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """`exp(state)`."""
        return ops.exp(state)

    def moved(
        self, state: Tensor, strength: Tensor, x: Any, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """At the first value above 0, `1 / (2·value)` and the logarithm of it."""
        value = ops.stop_gradient(value)
        starts = ops.logical_and(ops.isinf(state), value > 0)
        start = 0.5 / ops.where(starts, value, ops.ones_like(value))
        state = ops.where(starts, ops.log(start), state)
        return ops.where(starts, start, strength), state

    def added(self, strength: Tensor, value: Tensor) -> Tensor:
        """`strength·value − ½·log(strength)`, and 0 where nothing was seen.

        The value is exactly 0 of a batch without a known label: the strength then has
        no gradient. It is 0, too, before a start was found.
        """
        seen = ops.logical_and(value != 0, strength > 0)
        positive = ops.where(seen, strength, ops.ones_like(strength))
        return ops.where(seen, positive * value - 0.5 * ops.log(positive), 0.0 * value)

    def refusal(self, host: Host) -> str | None:
        """Refused for penalties: only a loss can be learned."""
        if host == "loss":
            return None
        return (
            "a number, a schedule or a `Target`: with a learned one a penalty would "
            "fall to 0 while its strength grows without end. `Learned` balances the "
            "losses of `keras_penalties.layers.AddLoss`"
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """From 1, from a hundredth, and from what the first batch says."""
        return [cls(), cls(0.01), cls("auto")]
