"""What a host keeps for the penalties that are anchored to arrays."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
from keras import ops

from keras_penalties.anchors import START
from keras_penalties.hosting.state import Variable
from keras_penalties.hosting.term import Term
from keras_penalties.penalties.base import Penalty
from keras_penalties.typing import Tensor

NewVariable: TypeAlias = Callable[[str, np.ndarray], Variable]
"""How a host creates a variable of its own, given a name and a value."""


class Anchors:
    """The arrays that a host keeps as its variables, for the penalties of its terms.

    An array that is not known yet is NaN. Of a penalty that asks for the weight as it
    is before the first step of training, that first step takes the array, so that
    weights may be loaded until then. Any other array that is missing makes the loss
    NaN, and `missing` names the term.

    Args:
        assign: How the host assigns its variables.
    """

    def __init__(self, assign: Callable[[Variable, Tensor], None]) -> None:
        self._assign = assign
        self._kept: dict[Term, dict[str, Variable]] = {}
        self._unsure: list[Term] = []

    def create(
        self,
        terms: Sequence[Term],
        shape_of: Callable[[Term], Sequence[int] | None],
        new: NewVariable,
    ) -> list[Variable]:
        """Create the variables, when the host is built.

        Args:
            terms: The host's terms.
            shape_of: The shape of the weight that a term penalises, None if not known.
            new: How to create a variable.
        """
        for term in filter(has_anchors, terms):
            kept = self._kept[term] = {}
            for name, anchor in term.penalty.anchors.items():  # type: ignore[union-attr]
                shape = shape_of(term) if anchor is None else anchor.shape
                if shape is None:
                    _refuse_unknown(term)
                array = None if anchor is None else anchor.array
                if anchor is not None and array is None:
                    self._unsure.append(term)
                start = np.full(tuple(shape), np.nan) if array is None else array
                kept[name] = new(f"{term.name}_{name}", start)
        return [v for kept in self._kept.values() for v in kept.values()]

    def penalty(self, term: Term, x: Any, training: bool = False) -> Any:
        """The term's penalty with the arrays, for the weight `x` as it is now."""
        if term not in self._kept:
            return term.penalty
        penalty: Penalty = term.penalty  # type: ignore[assignment]
        arrays: dict[str, Tensor] = {}
        for name, variable in self._kept[term].items():
            array = ops.convert_to_tensor(variable)
            if penalty.anchors[name] is None:
                now = ops.cast(ops.stop_gradient(x), array.dtype)
                array = ops.where(ops.isnan(array), now, array)
                if training:
                    self._assign(variable, array)
            arrays[name] = array
        return penalty.anchored(arrays)

    def together(
        self, whole: Penalty, terms: Sequence[Term], x: Tensor, training: bool = True
    ) -> Penalty:
        """The penalty that is the sum of these terms', by default for a training step.

        Only in training does the first step's weight become the start of a term.
        """
        if not any(term in self._kept for term in terms):
            return whole
        parts = [self.penalty(term, x, training) for term in terms]
        joined: Penalty = functools.reduce(operator.add, parts)
        return joined

    def shapes(self) -> dict[str, list[int]]:
        """The shapes of the arrays by the names of the terms and the arguments."""
        return {
            f"{term.name}_{name}": list(variable.shape)
            for term, kept in self._kept.items()
            for name, variable in kept.items()
        }

    def check(self) -> None:
        """Refuse to go on without an array. Only outside of a compiled step.

        Raises:
            ValueError: if an array was neither given nor loaded.
        """
        for term in self._unsure:
            for name, variable in self._kept[term].items():
                known = term.penalty.anchors[name] is None  # type: ignore[union-attr]
                array = ops.convert_to_numpy(variable)
                if not known and np.isnan(array).any():
                    raise ValueError(
                        f"The term '{term.name}' lacks its array `{name}` of shape "
                        f"{tuple(variable.shape)}, which is not in the config. Load "
                        "the weights of the model that it was saved with, or make the "
                        "penalty anew with the array."
                    )
        self._unsure.clear()


def has_anchors(term: Term) -> bool:
    """Whether the term's host must keep an array for it."""
    return isinstance(term.penalty, Penalty) and bool(term.penalty.anchors)


def refuse_outputs(term: Term) -> None:
    """Refuse what only a weight has: a start.

    Raises:
        ValueError: if the term is anchored to it and is on something else.
    """
    if not term.target.once and None in term.penalty.anchors.values():  # type: ignore[union-attr]
        raise ValueError(
            f"{term.penalty}, in the term '{term.name}', can penalise a weight only: "
            f"nothing else has a '{START}', a value before the first step of training."
        )


def _refuse_unknown(term: Term) -> NoReturn:
    """Say that a weight must be there before its start can be kept."""
    raise ValueError(
        f"The term '{term.name}' is anchored to its weight as training starts, and the "
        "weight is not built yet. Build or call the layer that owns it before it is "
        "penalised."
    )
