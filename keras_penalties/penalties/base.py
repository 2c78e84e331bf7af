"""What a penalty is: pure maths on one tensor, times a strength."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import keras
from keras import ops

from keras_penalties import checks, config
from keras_penalties.compiling import fused, pays_to_fuse, read_first
from keras_penalties.numerics import fused_sum, widened
from keras_penalties.registry import snake_case
from keras_penalties.strengths import StrengthLike, as_strength
from keras_penalties.typing import Tensor


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
    fuses: ClassVar[bool] = False
    """Whether `prox` consists of entrywise ops and sums, which a compiler makes a few
    passes over memory, where each op would take one."""
    indicator: ClassVar[bool] = False
    """Whether the value is 0 in a set and infinite outside. No gradient leads into the
    set, so only `Proximal` applies it: a Keras slot or a layer refuses it."""
    elastic: tuple[float, float] | None = None
    """(a, b) where the value is `Σ a·|x| + ½·b·x²`, else None: such parts of a sum have
    one proximal map together."""
    soft_threshold: ClassVar[str | None] = None
    """Where the soft threshold goes in the proximal map of this penalty plus an L1:
    `"before"` this penalty's own, `"after"` it, or None where neither is right."""
    statistic: ClassVar[str | None] = None
    """`"batch"` where the value is a statistic of a batch, `"mean"` where it depends on
    the batch's mean only, and None where it is an extensive sum. A host divides an
    extensive output term by the batch size, and a statistic never."""

    def __init__(self, strength: StrengthLike = 0.01) -> None:
        self.strength = as_strength(strength)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method, wrap in _WRAPS.items():
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

    def prox_parts(self, x: Tensor, ts: Sequence[Tensor]) -> Tensor:
        """The proximal map with a t for each of `parts()`, as `Proximal` takes it."""
        (t,) = ts
        return self.prox(x, t)

    @property
    def has_prox(self) -> bool:
        """Whether `prox` is known."""
        return type(self).prox is not Penalty.prox

    def __call__(self, x: Tensor) -> Tensor:
        """`strength * value(x)`: what a Keras slot adds to the loss."""
        x = ops.convert_to_tensor(x)
        return self._applied(x, 1.0)

    def _applied(self, x: Tensor, slot_divisor: Tensor) -> Tensor:
        """`strength * value(x)`; a statistic undoes what Keras' slot divides it by."""
        check_slopes(self)
        if not isinstance(self.strength, float):
            checks.refuse(
                "strength",
                "a constant here: a Keras slot has no step count and no multiplier. "
                "Put the penalty in `keras_penalties.layers.Penalized` or "
                "`ActivityPenalty`, which own them",
                self.strength,
            )
        if self.strength == 0.0:
            return ops.zeros((), widened(x).dtype)
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

    def with_strength(self, strength: StrengthLike) -> Self:
        """The same penalty with another strength."""
        return self.from_config(
            {
                **self.get_config(),
                "strength": keras.saving.serialize_keras_object(strength),
            }
        )

    def alike(self, other: Penalty) -> bool:
        """Whether two penalties are equal except for the strength."""
        if type(self) is not type(other):
            return False
        if self.indicator:
            return self == other
        return self.with_strength(1.0) == other.with_strength(1.0)

    def masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """TEMPORARY: replaced at the merge."""
        return self.value(x)

    def __add__(self, other: Penalty) -> Penalty:
        from keras_penalties.penalties.compose import Sum

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

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of input that the laws draw. A penalty that fits few names them."""
        return [s for s in ((6,), (4, 3), (2, 2, 3)) if len(s) >= self.rank]


def _widens(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`value` in at least float32, of a tensor whose rank the penalty accepts."""

    @functools.wraps(value)
    def wrapped(self: Penalty, x: Tensor) -> Tensor:
        x = widened(x)
        check_rank(self, x)
        return read_first(value(self, x), x)

    return wrapped


def _keeps_dtype(prox: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`prox` in at least float32, its result in the dtype that came."""

    @functools.wraps(prox)
    def wrapped(self: Penalty, x: Tensor, t: Tensor) -> Tensor:
        x = ops.convert_to_tensor(x)
        wide = widened(x)
        check_rank(self, x)
        t = ops.convert_to_tensor(t, wide.dtype)
        if self.fuses and pays_to_fuse(wide):
            shapes = tuple(x.shape), tuple(t.shape), wide.dtype
            moved = _fused_prox(prox, self.with_strength(1.0), *shapes)(wide, t)
        else:
            moved = prox(self, wide, t)
        return ops.cast(moved, x.dtype)

    return wrapped


@functools.cache
def _fused_prox(
    prox: Callable[..., Tensor], penalty: Penalty, *shapes: Any
) -> Callable[..., Tensor]:
    """One compiled map for all tensors of a shape under equal penalties."""
    return fused(functools.partial(prox, penalty))


_WRAPS = {"value": _widens, "entrywise": _widens, "prox": _keeps_dtype}


def check_rank(penalty: Penalty, x: Tensor) -> None:
    """Refuse a tensor that has fewer axes than the penalty speaks of."""
    if len(x.shape) < penalty.rank:
        raise ValueError(
            f"{type(penalty).__name__} needs a tensor of rank {penalty.rank} or more. "
            f"Received: a tensor of shape {tuple(x.shape)}"
        )


def check_slopes(penalty: Penalty) -> None:
    """Refuse an indicator where a gradient is to apply it: it would do nothing.

    Raises:
        ValueError: if the penalty is one.
    """
    if penalty.indicator:
        raise ValueError(
            f"{type(penalty).__name__} is a constraint: it has no gradient, so in a "
            "Keras slot or a layer it would do nothing. Give it to "
            "`keras_penalties.optimizers.Proximal`, or use a Keras constraint."
        )


def one_step(penalty: Penalty, t: Tensor) -> Tensor:
    """`t` as one number, for a proximal map that is right for no other.

    Raises:
        ValueError: if it is a number for each entry.
    """
    if math.prod(t.shape) != 1:
        raise ValueError(
            f"{type(penalty).__name__}.prox needs one t for the whole tensor. "
            f"Received: t of shape {tuple(t.shape)}"
        )
    return ops.reshape(t, ())


class Separable(Penalty):
    """A penalty that is a sum over single entries, `Σ φ(x)`.

    A subclass writes `entrywise`, and `prox` for one t per entry.
    """

    per_entry = True
    fuses = True

    def entrywise(self, x: Tensor) -> Tensor:
        """φ of each entry, with φ(0) = 0."""
        raise NotImplementedError

    def value(self, x: Tensor) -> Tensor:
        """`Σ φ(x)`."""
        if pays_to_fuse(x):
            return _fused_sum(self.with_strength(1.0), tuple(x.shape), x.dtype)(x)
        return ops.sum(self.entrywise(x))


@functools.cache
def _fused_sum(
    penalty: Separable, shape: tuple[int, ...], dtype: Any
) -> Callable[[Tensor], Tensor]:
    """One compiled function for all tensors of a shape under equal penalties."""
    return fused_sum(penalty.entrywise)
