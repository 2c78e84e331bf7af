"""A strength that is found in training, so that a constraint holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.masks import spread_mask
from keras_penalties.numerics import widened
from keras_penalties.registry import register
from keras_penalties.strengths.base import Host, Strength
from keras_penalties.typing import Tensor


def _density(x: Tensor, tolerance: float) -> Tensor:
    return ops.cast(ops.absolute(x) > tolerance, x.dtype)


def _mean(x: Tensor, tolerance: float) -> Tensor:
    return x


_MEASURES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "density": _density,
    "mean": _mean,
}
"""What each measure is the mean of, over the entries."""
_BOUNDS = {"<=": (0.0, math.inf), ">=": (-math.inf, 0.0), "==": (-math.inf, math.inf)}


def _real(
    x: Tensor, measured: Callable[[Tensor, float], Tensor], tolerance: float
) -> tuple[Tensor, Tensor]:
    """The measured entries, 0 where a mask hides one, and how many it does not hide."""
    entries, mask = measured(widened(x), tolerance), compat.keras_mask(x)
    if mask is None:
        return entries, ops.cast(ops.size(entries), entries.dtype)
    real = ops.broadcast_to(spread_mask(mask, entries), ops.shape(entries))
    count = ops.sum(ops.cast(real, entries.dtype))
    return ops.where(real, entries, ops.zeros_like(entries)), count


@register
class Target(Strength):
    """A strength that is found in training, so that a constraint holds.

    With the error `e = measure − value`, each training step uses
    `strength = clip(multiplier + damping·rate·e)`, and then takes
    `multiplier ← clip(multiplier + rate·e)`: dual ascent.

    The multiplier is a weight of the layer that hosts the penalty, saved with it, and
    the strength is in the logs as `<term>_strength`. While there is an error, the
    multiplier grows, until the error is 0. `damping` reduces swings on the way. Where
    the measure is the penalty's own value this is the augmented Lagrangian, and the
    multiplier goes to that of Lagrange: by how much the loss would fall if `value` were
    larger by one. Where it is another one, such as the density under an L1 penalty, the
    penalty takes the place of the measure and must make it smaller. The multiplier then
    has no other meaning. Its size is not known before, so let it move by factors,
    `relative=True`.

    Args:
        value: What the measure is held at, or below, or above.
        of: What is measured, of the weight or the output that the penalty is on.
            `"value"`, the default: the penalty itself, without its strength, an
            output's sum divided by the batch size as in its term. `"density"`: the
            share of entries that are larger than `tolerance`. `"mean"`: the mean
            entry. What a mask hides of an output is not measured.
        kind: `"<="`, the default, keeps the multiplier at 0 or more, `">="` at 0 or
            less, and `"=="` allows both signs.
        initial: The multiplier to start from. Default 0. Above 0 if `relative`.
        rate: How fast the multiplier moves, above 0, per step and unit of error: the
            size that it will have, over the steps that it may take. Default 0.01.
        relative: Whether the multiplier moves by the factor `exp(rate·e / |value|)`,
            e at most, so that no sizes need be known: it is found from any positive
            `initial` in not many steps, and stays positive. Default False.
        damping: How many steps' worth of the present error the strength has on top of
            the multiplier, 0 or more. Raise it where the measure swings about its
            value; 0 is plain dual ascent. Default 10.
        tolerance: For the density, the size up to which an entry counts as zero, 0 or
            more. A gradient alone makes no exact zeros of weights, only entries about
            as small as a step of the optimizer. Default 1e-3.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> small = kp.penalties.L2(kp.Target(1.0))  # the sum of squares, 1 at most
        >>> line = keras.layers.Dense(1, use_bias=False, name="line")
        >>> layer = kp.layers.Penalized(line, weights={"kernel": small})
        >>> model = keras.Sequential([layer])
        >>> model.compile(keras.optimizers.SGD(0.1), "half_sum_squared_error")
        >>> x = np.ones((500, 1))
        >>> _ = model.fit(x, 2.0 * x, batch_size=1, verbose=0)
        >>> round(float(line.kernel[0, 0]), 3)
        1.0
        >>> round(kp.terms(model)[0].strength, 3)  # (2 - 1) = strength * 2
        0.5

    Raises:
        ValueError: if an argument is out of range.

    Source: Sohrabi et al., "On PI Controllers for Updating Lagrange Multipliers in
    Constrained Optimization", 2024; Cotter et al., "Two-Player Games for Efficient
    Non-Convex Constrained Optimization", 2019, for measures with a stand-in.
    """

    counts_steps = False
    adapts = True

    def __init__(
        self,
        value: float,
        of: str = "value",
        kind: str = "<=",
        initial: float = 0.0,
        rate: float = 0.01,
        relative: bool = False,
        damping: float = 10.0,
        tolerance: float = 1e-3,
    ) -> None:
        self.value = checks.number("value", value)
        self.of = checks.one_of("of", of, ["value", *_MEASURES])
        self.kind = checks.one_of("kind", kind, list(_BOUNDS))
        self.initial = checks.number("initial", initial, *_BOUNDS[kind])
        self.rate = checks.positive("rate", rate)
        self.relative = bool(relative)
        if self.relative:
            checks.positive("initial", self.initial)
            checks.positive("value", abs(self.value))
        self.damping = checks.non_negative("damping", damping)
        self.tolerance = checks.non_negative("tolerance", tolerance)

    @property
    def initial_state(self) -> float:
        """The state is the multiplier."""
        return self.initial

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """The multiplier."""
        return state

    def moved(
        self, state: Tensor, strength: Tensor, x: Any, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The damped strength for a step of training, and the multiplier after it."""
        change = self.rate * ops.stop_gradient(self._error(x, value))
        return self._moved(state, self.damping * change), self._moved(state, change)

    def refusal(self, host: Host) -> str | None:
        """A proximal map needs a strength of 0 or more, and a loss has a value only."""
        if host == "proximal" and self.kind != "<=":
            return "targets of the kind '<=': no proximal map has a strength below 0"
        if host == "loss" and self.of != "value":
            return "a target of the loss itself, 'value'"
        return super().refusal(host)

    def _error(self, x: Any, penalty_value: Tensor) -> Tensor:
        """By how much the measure exceeds the value."""
        if self.of == "value":
            return penalty_value - self.value
        total = count = 0.0
        for tensor in keras.tree.flatten(x):
            entries, real = _real(tensor, _MEASURES[self.of], self.tolerance)
            total, count = total + ops.sum(entries), count + real
        measure = ops.divide_no_nan(total, count)
        return ops.cast(measure, penalty_value.dtype) - self.value

    def _moved(self, multiplier: Tensor, change: Tensor) -> Tensor:
        if self.relative:
            share = change / abs(self.value)
            return multiplier * ops.exp(ops.clip(share, -1.0, 1.0))
        return ops.clip(multiplier + change, *_BOUNDS[self.kind])

    @classmethod
    def examples(cls) -> list[Self]:
        """A norm held below, a density, a mean, and a mean below 0 by factors."""
        tenth = cls(0.1, of="density", initial=1e-3, relative=True, tolerance=0.5)
        below = cls(-0.5, "mean", "==", 0.1, rate=0.05, relative=True, damping=0.0)
        return [cls(3.0), tenth, cls(0.5, of="mean", kind="=="), below]
