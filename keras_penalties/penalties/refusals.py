"""Where a penalty can't be applied, and the errors that say who can apply it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

from keras import ops

from keras_penalties.anchors import refuse_start
from keras_penalties.typing import Tensor

if TYPE_CHECKING:  # the base class imports this file
    from keras_penalties.penalties.base import Penalty


def check_rank(penalty: Penalty, x: Tensor) -> None:
    """Refuse a tensor that has fewer axes than the penalty needs."""
    if len(x.shape) < penalty.rank:
        raise ValueError(
            f"{type(penalty).__name__} needs a tensor of rank {penalty.rank} or more. "
            f"Received: a tensor of shape {tuple(x.shape)}"
        )


def refuse_part(penalty: Penalty) -> NoReturn:
    """Refuse a masked output, of which the penalty is not defined."""
    raise ValueError(
        f"{type(penalty).__name__} is not defined for a part of an output, and this "
        "output has a mask. Penalise an output without a mask, or one that is made of "
        "the real entries only."
    )


def check_slopes(penalty: Penalty) -> None:
    """Refuse a constraint or a count where a gradient is to apply it: it does nothing.

    Raises:
        ValueError: if the penalty is one, or has one as a part.
    """
    for part in penalty.parts():
        if not part.has_slope:
            kind, other = "a count of nonzeros", ""
            if part.indicator:
                kind, other = "a constraint", ", or use a Keras constraint"
            raise ValueError(
                f"{type(part).__name__} is {kind}: it has no gradient, so in a "
                "Keras slot or a layer it would do nothing. Give it to "
                f"`keras_penalties.optimizers.Proximal`{other}."
            )


def check_slot(penalty: Penalty) -> None:
    """Refuse what a Keras slot can't apply: a statistic of a batch, and `"start"`.

    Raises:
        ValueError: if the penalty is one, or has one as a part.
    """
    for part in penalty.parts():
        if None in part.anchors.values():
            refuse_start(part)
        if part.statistic:
            raise ValueError(
                f"{type(part).__name__} is a statistic of a batch. Keras divides what "
                "an activity slot gives by the batch size, so a slot would apply it "
                "with the wrong strength. Put it in "
                "`keras_penalties.layers.ActivityPenalty` or "
                "`keras_penalties.layers.Penalized(layer, outputs=...)`; for the bare "
                "number call its `value`."
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
