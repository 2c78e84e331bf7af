"""Sparsity within groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import absolute, positive_part, scaled
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.layouts import Layout, checked_groups
from keras_penalties.penalties.ranked import threshold
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register
class ExclusiveLasso(Penalty):
    """Competition within groups, so that each keeps a few entries: `½·Σ_g (Σ|x_g|)²`.

    The opposite of the group lasso, which drops whole groups. With groups of one entry
    each it is half of L2. The proximal map is exact, also for one t per entry.

    Args:
        strength: The multiplier, 0 or more. Default 0.01. Papers differ by the ½.
        axis: The axis, or axes, that index the groups: 0 lets the weights that leave
            one input compete. Default None: all of x is one group.
        groups: Lists of indices into the flattened x, in place of `axis`. Entries in no
            list are not penalised, an entry in two is refused.

    Shapes: any that has the axes of `axis`, or the entries that `groups` name.

    Example:
        >>> import keras_penalties as kp
        >>> compete = kp.penalties.ExclusiveLasso(1.0, groups=[[0, 1], [2]])
        >>> float(compete([1.0, -2.0, 3.0]))
        9.0

    Raises:
        ValueError: if both `axis` and `groups` are given, two groups share an entry, or
            x does not fit.

    Source: Zhou, Jin and Hoi, "Exclusive Lasso for Multi-task Feature Selection", 2010;
    Kowalski, "Sparse Regression Using Mixed Norms", 2009, for the ½ and the proximal
    map.
    """

    ignores_zeros = True
    per_entry = True

    def __init__(
        self,
        strength: StrengthLike = 0.01,
        axis: int | Sequence[int] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(strength)
        if axis is not None and groups is not None:
            checks.refuse("axis", "None, as `groups` is given", axis)
        self.axis = None if axis is None else checks.axes("axis", axis)
        self.groups = None if groups is None else checked_groups("groups", groups)

    @property
    def _layout(self) -> Layout:
        return Layout(axis=self.axis, groups=self.groups)

    def compute_value(self, x: Tensor) -> Tensor:
        """`½·Σ_g (Σ|x_g|)²`."""
        sums = ops.sum(absolute(self._layout.rows(x)), axis=1)
        return 0.5 * ops.sum(ops.square(sums))

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The soft threshold at t times the sum of magnitudes that it leaves."""
        layout = self._layout
        rows, each = layout.rows(x), layout.rows(ops.broadcast_to(t, x.shape))
        sizes, scale = scaled(ops.absolute(rows), axis=1)  # the map scales with x
        left = sizes - each * threshold(sizes, each, total=0.0, room=1.0)
        return layout.joined(ops.sign(rows) * positive_part(left) * scale, x)

    @classmethod
    def examples(cls) -> list[Self]:
        """One group, rows, and lists."""
        return [cls(0.5), cls(0.5, axis=0), cls(0.5, groups=[[0, 3], [1, 2, 5]])]
