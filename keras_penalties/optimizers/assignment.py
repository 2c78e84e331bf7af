"""Which penalty acts on which weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from keras_penalties import checks
from keras_penalties import penalties as penalty_names
from keras_penalties.hosting.addresses import check_pattern, fits
from keras_penalties.hosting.claims import twin
from keras_penalties.hosting.targets import WeightTarget
from keras_penalties.hosting.term import terms_of
from keras_penalties.penalties.base import Penalty
from keras_penalties.penalties.refusals import check_slopes
from keras_penalties.strengths import check_host
from keras_penalties.typing import Tensor


class Assigned:
    """The penalty on one weight, and the terms that the penalty is the sum of."""

    def __init__(self, penalty: Penalty, path: str, per_entry: bool) -> None:
        self.penalty = penalty
        self.terms = terms_of(penalty, WeightTarget(path), path)
        self._one_size = per_entry and not penalty.per_entry
        self._limited = 0.0 < penalty.concavity < math.inf
        self.shortens = self._one_size or self._limited
        """Whether a step may have to be made shorter for this penalty."""

    def shortened(self, size: Tensor, strengths: Sequence[Tensor]) -> Tensor:
        """The step sizes, shortened where the proximal map needs it."""
        if self._one_size:  # 1/size² is a second moment: take its mean
            least = ops.min(size)
            spread = ops.where(size > 0, least / size, ops.ones_like(size))
            size = least / ops.sqrt(ops.mean(ops.square(spread)))
        if self._limited:  # to half of the size at which the map becomes discontinuous
            pairs = zip(strengths, self.penalty.parts(), strict=True)
            bend = sum(s * part.concavity for s, part in pairs)
            excess = 2.0 * bend * size
            size = size / ops.where(excess > 1, excess, ops.ones_like(excess))
        return size


def checked(penalties: Any, proximal: bool) -> dict[str, Penalty]:
    """The penalties that the user gave, each such as the optimizer can apply.

    Args:
        penalties: What the user gave.
        proximal: Whether they act by their proximal maps, and not by their gradients.

    Raises:
        ValueError: if one is not, or a pattern is no regular expression.
    """
    if not isinstance(penalties, Mapping) or not penalties:
        checks.refuse("penalties", "a dict of {pattern: penalty}, not empty", penalties)
    found = {
        p: penalty_names.get(given, f"penalties[{checks.shown(p)}]")
        for p, given in penalties.items()
    }
    for pattern, penalty in found.items():
        check_pattern("penalties", pattern)
        if any(part.statistic for part in penalty.parts()):
            checks.refuse("penalties", "penalties of a weight, no statistics", penalty)
        if not proximal:
            check_slopes(penalty)
        elif not penalty.has_prox:
            checks.refuse("penalties", "penalties with a proximal map", penalty)
        for part in penalty.parts():
            check_host(
                part.strength, "proximal" if proximal else "optimizer", "penalties"
            )
    return found


def matched(
    penalties: Mapping[str, Penalty],
    variables: Sequence[Any],
    per_entry: bool,
    proximal: bool,
) -> dict[int, Assigned]:
    """The penalties on the weights that they fit, by the weights' indices.

    Args:
        penalties: By patterns for the whole path of a weight, or for its end from a
            `/` on.
        variables: The weights that are trained.
        per_entry: Whether the optimizer has a step size for each entry.
        proximal: Whether the penalties act by their proximal maps.

    Raises:
        ValueError: if a pattern fits no weight, two patterns fit the same weight, or a
            penalty does not fit its weight.
    """
    found: dict[int, Assigned] = {}
    paths = [v.path for v in variables]
    for pattern, penalty in penalties.items():
        fitting = [i for i, path in enumerate(paths) if fits(pattern, path)]
        if not fitting:
            expected = f"patterns that fit one of the trained weights {paths}"
            checks.refuse("penalties", expected, pattern)
        for i in fitting:
            if i in found:
                expected = f"one pattern only that fits '{paths[i]}'"
                checks.refuse("penalties", expected, pattern)
            _check_fits(variables[i], penalty, proximal)
            found[i] = Assigned(penalty, paths[i], per_entry)
    return found


def _check_fits(variable: Any, penalty: Penalty, proximal: bool) -> None:
    if proximal and variable.regularizer is not None:
        checks.refuse(
            "penalties",
            f"weights without a regularizer of their own, and '{variable.path}' has "
            f"{variable.regularizer}",
            penalty,
        )
    for part in penalty.parts():
        if (other := twin(variable, part)) is not None:
            checks.refuse(
                "penalties",
                f"penalties that no layer puts on '{variable.path}' already, except "
                f"for the strength, as {other}. Add the strengths and keep one",
                penalty,
            )
    if getattr(variable, "constraint", None) is not None:
        warnings.warn(
            f"'{variable.path}' has a Keras constraint, "
            f"{type(variable.constraint).__name__}, which acts after the proximal map "
            "of each step: training then rests elsewhere than at the least loss + "
            f"penalty in the set. Give the set to `Proximal` instead, as a part of the "
            "penalty: for example `l1(0.1) + box()` for L1 and weights of 0 or more.",
            stacklevel=2,
        )
    if len(variable.shape) < penalty.rank:
        checks.refuse(
            "penalties",
            f"for '{variable.path}', of shape {tuple(variable.shape)}, a penalty of "
            f"rank {len(variable.shape)} at most",
            penalty,
        )
