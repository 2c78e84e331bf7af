"""What a penalty is: pure maths on one tensor, times a strength."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import keras
from keras import ops

from keras_penalties import checks, compat, config
from keras_penalties.numerics import Tensor, widened
from keras_penalties.registry import register, snake_case
from keras_penalties.strengths import Strength, as_strength


class Penalty(config.FromSignature, keras.regularizers.Regularizer):
    """`strength * value(x)`, with a proximal map where one is known.

    A penalty holds no state and is immutable: whoever applies it, a Keras slot, a
    layer or an optimizer, owns what changes while training. A subclass writes
    `value`, and `prox` where it knows it, for float32 or wider input: half floats are
    widened before either is called.

    Args:
        strength: The multiplier, 0 or more. A layer or `Proximal` also takes a
            `keras.optimizers.schedules.LearningRateSchedule`. Default 0.01.

    Raises:
        ValueError: if the strength is negative or not finite.
    """

    convex: ClassVar[bool] = True
    """Whether the value is a convex function."""
    even: ClassVar[bool] = True
    """Whether value(-x) == value(x)."""
    rank: ClassVar[int] = 0
    """The smallest rank of input that has a meaning: 2 for a matrix penalty."""
    domain: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))
    """The entries for which the formula is meant."""
    per_entry: ClassVar[bool] = False
    """Whether `prox` is right for one t per entry, the metric of an adaptive optimizer,
    and not only for one number. False is always safe: `Proximal` then gives the whole
    weight one t."""
    statistic: ClassVar[str | None] = None
    """`"batch"` where the value is a statistic of a batch, `"mean"` where it depends on
    the batch's mean only, and None where it is an extensive sum. A host divides an
    extensive output term by the batch size, and a statistic never."""

    def __init__(self, strength: Strength = 0.01) -> None:
        self.strength = as_strength(strength)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method, wrap in (("value", _widens), ("prox", _keeps_dtype)):
            if method in vars(cls):
                setattr(cls, method, wrap(vars(cls)[method]))

    def value(self, x: Tensor) -> Tensor:
        """The scalar that the strength multiplies, in at least float32."""
        raise NotImplementedError

    def prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The minimiser over u of `t·value(u) + ½‖u − x‖²`, where t = step · strength.

        Args:
            x: The point, of any shape that the penalty accepts.
            t: 0 or more, a scalar or a tensor that broadcasts to `x`.

        Raises:
            NotImplementedError: if no proximal map is known for this penalty.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no known proximal map, so it can be applied by "
            "a Keras slot or a layer, by its gradient, but not by `Proximal`."
        )

    @property
    def has_prox(self) -> bool:
        """Whether `prox` is known."""
        return type(self).prox is not Penalty.prox

    def __call__(self, x: Tensor) -> Tensor:
        """`strength * value(x)`: what a Keras slot adds to the loss."""
        if not isinstance(self.strength, float):
            checks.refuse(
                "strength",
                "a constant here: a Keras slot has no step count. Put the penalty in "
                "`keras_penalties.layers.Penalized` or `ActivityPenalty`, which own "
                "one",
                self.strength,
            )
        x = ops.convert_to_tensor(x)
        return self._applied(x, compat.slot_divisor(x))

    def _applied(self, x: Tensor, slot_divisor: Tensor) -> Tensor:
        """`strength * value(x)`; a statistic undoes what Keras' slot divides it by."""
        result = self.strength * self.value(x)
        if self.statistic:
            result *= ops.cast(slot_divisor, result.dtype)
        return result

    @property
    def name(self) -> str:
        """The word for this penalty in logs: its string name."""
        return snake_case(type(self).__name__)

    @property
    def concavity(self) -> float:
        """The least c for which `value(x) + ½·c·‖x‖²` is convex; infinite if none is.

        `prox` is continuous for t below its inverse, and jumps beyond.
        """
        return 0.0 if self.convex else math.inf

    def parts(self) -> list[Penalty]:
        """The penalties that this one is the sum of: itself, unless it is a `Sum`."""
        return [self]

    def with_strength(self, strength: Strength) -> Self:
        """The same penalty with another strength."""
        return self.from_config(
            {
                **self.get_config(),
                "strength": keras.saving.serialize_keras_object(strength),
            }
        )

    def __add__(self, other: Penalty) -> Sum:
        if not isinstance(other, Penalty):
            return NotImplemented
        return Sum([*self.parts(), *other.parts()])

    def __mul__(self, factor: float) -> Any:
        factor = checks.non_negative("factor", factor)
        if not isinstance(self.strength, float):
            checks.refuse("strength", "a constant, to be multiplied", self.strength)
        return self.with_strength(self.strength * factor)

    __rmul__ = __mul__

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws, the docs and the listing run over."""
        return [cls(0.5)]


def _widens(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`value` in at least float32, of a tensor whose rank the penalty accepts."""

    @functools.wraps(value)
    def wrapped(self: Penalty, x: Tensor) -> Tensor:
        x = widened(x)
        check_rank(self, x)
        return value(self, x)

    return wrapped


def _keeps_dtype(prox: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`prox` in at least float32, its result in the dtype that came."""

    @functools.wraps(prox)
    def wrapped(self: Penalty, x: Tensor, t: Tensor) -> Tensor:
        x = ops.convert_to_tensor(x)
        wide = widened(x)
        check_rank(self, x)
        return ops.cast(prox(self, wide, ops.cast(t, wide.dtype)), x.dtype)

    return wrapped


def check_rank(penalty: Penalty, x: Tensor) -> None:
    """Refuse a tensor that has fewer axes than the penalty speaks of."""
    if len(x.shape) < penalty.rank:
        raise ValueError(
            f"{type(penalty).__name__} needs a tensor of rank {penalty.rank} or more. "
            f"Received: a tensor of shape {tuple(x.shape)}"
        )


@register(string_name=False)  # `sum` says too little to stand alone in a slot.
class Sum(Penalty):
    """Several penalties on one tensor: `Σ strengthᵢ · valueᵢ(x)`.

    `L1(0.1) + L2(0.01)` makes one, and `2 * (...)` multiplies each strength.

    Args:
        penalties: Two penalties or more. Sums among them are flattened.

    Example:
        >>> import keras_penalties as kp
        >>> both = kp.penalties.L1(0.5) + kp.penalties.L2(0.25)
        >>> float(both([3.0, -1.0]))
        4.5

    Raises:
        ValueError: if there is nothing to sum, or something is not a penalty.
    """

    strength = 1.0

    def __init__(self, penalties: Iterable[Penalty]) -> None:
        self.penalties = flattened(penalties)

    def value(self, x: Tensor) -> Tensor:
        """The sum of the parts, each with its own strength."""
        return self._applied(x, 1.0)

    def _applied(self, x: Tensor, slot_divisor: Tensor) -> Tensor:
        return sum(part._applied(x, slot_divisor) for part in self.penalties)

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Whether every part is."""
        return all(part.convex for part in self.penalties)

    @property
    def even(self) -> bool:  # type: ignore[override]
        """Whether every part is."""
        return all(part.even for part in self.penalties)

    @property
    def rank(self) -> int:  # type: ignore[override]
        """The largest rank that a part asks for."""
        return max(part.rank for part in self.penalties)

    @property
    def domain(self) -> tuple[float, float]:  # type: ignore[override]
        """The entries for which every part is meant."""
        lows, highs = zip(*(part.domain for part in self.penalties), strict=True)
        return max(lows), min(highs)

    @property
    def statistic(self) -> str | None:  # type: ignore[override]
        """What the parts agree on: a host takes the parts one by one."""
        kinds = {part.statistic for part in self.penalties}
        return kinds.pop() if len(kinds) == 1 else "batch"

    def parts(self) -> list[Penalty]:
        """The penalties in the sum."""
        return list(self.penalties)

    def __mul__(self, factor: float) -> Any:
        return Sum([part * factor for part in self.penalties])

    __rmul__ = __mul__

    def with_strength(self, strength: Strength) -> Self:
        """Refused: each part of a sum has a strength of its own."""
        raise TypeError("A Sum has no strength of its own: multiply it instead.")

    @classmethod
    def examples(cls) -> list[Self]:
        """A sum of a kinked and a smooth penalty."""
        from keras_penalties.penalties.separable import L1, L2

        return [cls([L1(0.5), L2(0.25)])]


def flattened(penalties: Iterable[Penalty]) -> list[Penalty]:
    """The parts of all penalties, in order."""
    given = list(penalties)
    for penalty in given:
        checks.instance("penalties", penalty, Penalty)
    if not given:
        checks.refuse("penalties", "at least one penalty", given)
    return [part for penalty in given for part in penalty.parts()]
