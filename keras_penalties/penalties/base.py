"""What a penalty is: pure maths on one tensor, times a strength."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, final

import keras
from keras import ops

from keras_penalties import checks, config
from keras_penalties.anchors import Anchor
from keras_penalties.compiling import (
    copies_halves,
    pays_to_fuse,
    pays_to_fuse_sum,
    read_first,
)
from keras_penalties.masks import spread_mask
from keras_penalties.numerics import plain_tensor, unless_empty, widened
from keras_penalties.penalties.fusing import fused_map, fused_total
from keras_penalties.penalties.refusals import (
    check_rank,
    check_slopes,
    check_slot,
    refuse_part,
)
from keras_penalties.registry import lookup, snake_case
from keras_penalties.strengths import (
    StrengthLike,
    as_strength,
    check_host,
    constant,
)
from keras_penalties.sums import sum_by_blocks
from keras_penalties.typing import Tensor


class Penalty(config.FromSignature, keras.regularizers.Regularizer):
    """`strength * value(x)`, with a proximal map where one is known.

    A penalty holds no state and is immutable: the host that applies it, a Keras slot, a
    layer or an optimizer, owns what changes while training.

    A subclass writes `compute_value`, and `compute_prox` where a proximal map is known.
    Hosts and users call `value` and `prox`, which a subclass cannot replace: these
    check the rank, and compute half floats in float32.

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
    """Whether `prox` is right for one t per entry, as an adaptive optimizer has it, and
    not only for one number. False is always safe: `Proximal` then gives the whole
    weight one t."""
    by_entries: ClassVar[bool] = False
    """Whether the value is `Σ entrywise(x)`, a sum over single entries."""
    fuses: ClassVar[bool] = False
    """Whether `prox` consists of entrywise ops and sums, which a compiler makes a few
    passes over memory, where each op would take one."""
    indicator: ClassVar[bool] = False
    """Whether the value is 0 in a set and infinite outside."""
    has_slope: ClassVar[bool] = True
    """Whether a gradient leads to lower values. That of an indicator or a count is 0,
    so only `Proximal` applies these: a Keras slot or a layer refuses them."""
    elastic: tuple[float, float] | None = None
    """(a, b) where the value is `Σ a·|x| + ½·b·x²`, else None: such parts of a sum have
    one proximal map together."""
    joint: ClassVar[str | None] = None
    """How the proximal map goes together with those of other parts of a sum: `"square"`
    or one of the `PLACES` in `joint.py`. None where it doesn't, except beside squares.
    """
    uniform: ClassVar[bool] = True
    """Of a `"square"`: whether it has the same weight for all entries."""
    statistic: ClassVar[str | None] = None
    """`"batch"` where the value is a statistic of a batch, `"mean"` where it depends on
    the batch's mean only, and None where it is an extensive sum. A host divides an
    extensive output term by the batch size, and a statistic never."""

    ignores_zeros: ClassVar[bool] = False
    """Whether an entry of 0 has no part in the value, so that zeros may stand in place
    of what a mask leaves out."""

    def __init__(self, strength: StrengthLike = 0.01) -> None:
        self.strength = as_strength(strength)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method in ("value", "masked_value", "prox"):
            if getattr(cls, method) is not getattr(Penalty, method):
                raise TypeError(
                    f"{cls.__name__}.{method} would replace `Penalty.{method}`, which "
                    "checks the rank and computes half floats in float32: write "
                    f"compute_{method} instead, which it calls."
                )

    def compute_value(self, x: Tensor) -> Tensor:
        """The scalar that the strength multiplies, of `x` in float32 or float64."""
        raise NotImplementedError

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """What `prox` returns, of `x` and `t` in one dtype, float32 or float64."""
        raise NotImplementedError(
            f"{type(self).__name__} has no known proximal map, so it can be applied by "
            "a Keras slot or a layer, by its gradient, but not by `Proximal`."
        )

    @final
    def value(self, x: Tensor) -> Tensor:
        """The scalar that the strength multiplies, in at least float32; 0 of no entry.

        Raises:
            ValueError: if `x` has fewer axes than the penalty needs.
        """
        x = plain_tensor(x)
        check_rank(self, x)
        if self.by_entries and copies_halves(x):
            return sum_by_blocks(self.compute_value)(x)
        x = widened(x)
        if 0 in x.shape:
            return ops.sum(x)
        return read_first(unless_empty(self.compute_value(x), x), x)

    @final
    def masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """The value of an output of which a mask says what is real.

        It is the value of the real entries alone, and 0 if there are none. The others
        have no part in the value nor in the gradient, even if they are NaN.

        Args:
            x: The output.
            mask: True where `x` is real, of the shape of the first axes of `x`.

        Raises:
            ValueError: if the mask does not fit, or the penalty of a part of an output
                is not defined.
        """
        x = widened(x)
        check_rank(self, x)
        mask = spread_mask(mask, x)
        real = ops.where(mask, x, ops.zeros_like(x))
        if 0 in x.shape:
            return ops.sum(real)
        return unless_empty(self.compute_masked_value(real, mask), x)

    def compute_masked_value(self, x: Tensor, mask: Tensor) -> Tensor:
        """What `masked_value` returns, of `x` with 0 in place of what is masked.

        Args:
            x: The output, in float32 or float64.
            mask: True where `x` is real; it broadcasts to `x`.
        """
        return self.compute_value(x) if self.ignores_zeros else refuse_part(self)

    @final
    def prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The minimiser over u of `t·value(u) + ½‖u − x‖²`, where t = step · strength.

        The result has the dtype of `x`, and is computed in at least float32.

        Args:
            x: The point, of any shape that the penalty accepts.
            t: 0 or more, a scalar or a tensor that broadcasts to `x`.

        Raises:
            NotImplementedError: if no proximal map is known for this penalty.
            ValueError: if `x` has fewer axes than the penalty needs.
        """
        x = ops.convert_to_tensor(x)
        wide = widened(x)
        check_rank(self, wide)
        if 0 in x.shape and self.has_prox:
            return x
        t = ops.convert_to_tensor(t, wide.dtype)
        fuses = self.fuses and pays_to_fuse(wide)
        moved = (fused_map if fuses else type(self).compute_prox)(self, wide, t)
        return ops.cast(moved, x.dtype)

    def square(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c), where `joint` is `"square"` and the value `½·Σ b·(x − c)²`."""
        raise NotImplementedError

    def prox_parts(self, x: Tensor, ts: Sequence[Tensor]) -> Tensor:
        """The proximal map with a t for each of `parts()`, as `Proximal` takes it."""
        (t,) = ts
        return self.prox(x, t)

    @property
    def has_prox(self) -> bool:
        """Whether `prox` is known."""
        return type(self).compute_prox is not Penalty.compute_prox

    def __call__(self, x: Tensor) -> Tensor:
        """`strength * value(x)`: what a Keras slot adds to the loss.

        Raises:
            ValueError: if a slot can't apply the penalty: a constraint, a statistic of
                a batch, or one whose strength moves.
        """
        check_slopes(self)
        check_slot(self)
        return self.weighed(ops.convert_to_tensor(x))

    def weighed(self, x: Tensor) -> Tensor:
        """`strength * value(x)` for a constant strength; no value for a strength of 0.

        Raises:
            ValueError: if the strength moves.
        """
        check_host(self.strength, "slot")
        strength = constant(self.strength)
        if not strength:
            return ops.zeros((), widened(x).dtype)
        return strength * self.value(x)

    def alike(self, other: object) -> bool:
        """Whether the other is the same penalty, except perhaps for its strength.

        Two penalties that are alike count as one whose strength is the sum of theirs.
        """
        if type(self) is not type(other):
            return False
        names = [name for name in config.arguments(type(self)) if name != "strength"]
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        return all(a.alike(b) if isinstance(a, Penalty) else a == b for a, b in pairs)

    @property
    def anchors(self) -> dict[str, Anchor | None]:
        """The arguments that a host is to keep among its weights, beside the config.

        None stands for the penalised weight as it is before the first step of training.
        """
        return {}

    def anchored(self, arrays: Mapping[str, Tensor]) -> Self:
        """This penalty with the tensors that a host keeps for its `anchors`."""
        held = copy.copy(self)
        for name, array in arrays.items():
            setattr(held, name, array)
        return held

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
        return type(self)(**{**config.given(self), "strength": strength})

    def __add__(self, other: Penalty) -> Penalty:
        if not isinstance(other, Penalty):
            return NotImplemented
        # By its name: `Sum` is a penalty, so its file imports this one.
        made: Penalty = lookup("keras_penalties>Sum", "penalty")(
            [*self.parts(), *other.parts()]
        )
        return made

    def __mul__(self, factor: float) -> Any:
        factor = checks.non_negative("factor", factor)
        if (strength := constant(self.strength)) is None:
            checks.refuse("strength", "a constant, to be multiplied", self.strength)
        return self.with_strength(strength * factor)

    __rmul__ = __mul__

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws, the docs and the listing run over."""
        return [cls(0.5)]

    def example_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of input that the laws draw. A penalty that fits few names them."""
        return [s for s in ((6,), (4, 3), (2, 2, 3)) if len(s) >= self.rank]


class Separable(Penalty):
    """A penalty that is a sum over single entries, `Σ φ(x)`.

    A subclass writes `entrywise`, and `compute_prox` for one t per entry.
    """

    per_entry = True
    by_entries = True
    fuses = True
    ignores_zeros = True

    def entrywise(self, x: Tensor) -> Tensor:
        """φ of each entry, with φ(0) = 0, in the dtype of `x`."""
        raise NotImplementedError

    def compute_value(self, x: Tensor) -> Tensor:
        """`Σ φ(x)`."""
        # |x| and x² take one pass in any case: there XLA saves memory only.
        pays = pays_to_fuse if self.elastic is None else pays_to_fuse_sum
        return fused_total(self, x) if pays(x) else ops.sum(self.entrywise(x))
