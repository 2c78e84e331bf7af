"""A strength that is trained with the weights: a balance between losses."""

from __future__ import annotations

import math
from typing import Self

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
    term itself, with the logarithm in it, may be negative. Weight decay would draw the
    strength to 1: `optimizer.exclude_from_weight_decay(var_names=["log_strength"])`.

    L must stay above 0. As L falls to 0, as when a network learns its data by heart,
    the strength grows without end, and a loss that can be negative, as a density's
    logarithm can, has no minimum. So penalties, whose least value is 0, refuse it.

    Args:
        initial: The strength to start from, above 0. Default 1.

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

    def __init__(self, initial: float = 1.0) -> None:
        self.initial = checks.positive("initial", initial)

    @property
    def initial_state(self) -> float:
        """`log(initial)`: the state is the logarithm, which may take any value."""
        return math.log(self.initial)

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """`exp(state)`."""
        return ops.exp(state)

    def added(self, strength: Tensor, loss: Tensor) -> Tensor:
        """`strength·loss − ½·log(strength)`."""
        return strength * loss - 0.5 * ops.log(strength)

    def refusal(self, host: Host) -> str | None:
        """Only a loss can have it."""
        if host == "loss":
            return None
        return (
            "a number, a schedule or a `Target`: with a learned one a penalty would "
            "fall to 0 while its strength grows without end. `Learned` balances the "
            "losses of `keras_penalties.layers.AddLoss`"
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """From 1, and from a hundredth."""
        return [cls(), cls(0.01)]
