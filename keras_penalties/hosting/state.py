"""The state of a host's terms: the one place that knows the order of the strengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_penalties.compiling import apart, in_turns
from keras_penalties.hosting.term import Term
from keras_penalties.typing import Tensor

Variable = Any
"""A `keras.Variable`, for which Keras has no static type."""


class TermState:
    """One number for each term, from step to step, in variables of the host.

    The numbers lie in one vector. What a strength lets the optimizer train is a weight
    of its own.

    Args:
        terms: The host's terms.
        assign: How the host assigns its variables.
    """

    def __init__(
        self, terms: Sequence[Term], assign: Callable[[Variable, Tensor], None]
    ) -> None:
        self.terms = tuple(terms)
        self._assign = assign
        self._place = {term: place for place, term in enumerate(self.terms)}
        self.vector: Variable = None
        self._trained: dict[Term, Variable] = {}

    def initial(self) -> np.ndarray:
        """What the vector starts from."""
        return np.array([term.strength.initial_state for term in self.terms])

    def hold(self, vector: Variable, trained: Mapping[Term, Variable]) -> None:
        """Take the variables that the host has created for the state."""
        self.vector, self._trained = vector, dict(trained)

    def numbers(self, terms: Sequence[Term]) -> dict[Term, Tensor]:
        """The number of each of these terms."""
        # A copy: torch must not see change what a gradient will be computed from.
        vector = ops.copy(self.vector)
        whole = len(terms) == len(self.terms)  # then in one operation
        entries = apart(vector) if whole else vector
        return {term: entries[self._place[term]] for term in terms}

    def trained(self, term: Term) -> Tensor:
        """The weight that is trained for a term, or 0."""
        variable = self._trained.get(term)
        return 0.0 if variable is None else ops.convert_to_tensor(variable)

    def strength(self, term: Term, step: Tensor, training: bool = True) -> Tensor:
        """The strength of a term at a step of training, or in an evaluation."""
        return Pass(self, step, training, terms=[term]).strengths[term]

    def move(self, term: Term, number: Tensor) -> None:
        """Let the term have another number."""
        place = (self._place[term],)
        entry = ops.reshape(number, (1,))
        moved = ops.slice_update(ops.copy(self.vector), place, entry)
        self._assign(self.vector, moved)

    def set(self, term: Term, number: float) -> None:
        """Let the term have another number, from outside of a step."""
        numbers = ops.convert_to_numpy(self.vector).copy()
        numbers[self._place[term]] = number
        self.vector.assign(numbers)


class Pass:
    """What the terms read and move in one forward pass, or one step of an optimizer.

    Each strength is read once in a pass, and each state moves once, however often the
    host is called in the pass. A state that adapts moves by all that was measured in
    the pass; its strength stays what the first call found.
    """

    def __init__(
        self,
        state: TermState,
        step: Tensor,
        training: bool,
        terms: Sequence[Term] | None = None,
    ) -> None:
        self.training = training
        self._state = state
        self._numbers = state.numbers(state.terms if terms is None else terms)
        self.strengths: dict[Term, Tensor] = {
            term: term.strength.at(step, number + state.trained(term), training)
            for term, number in self._numbers.items()
        }
        self._seen: dict[Term, tuple[list[Any], Tensor]] = {}
        self.added: dict[Term, Tensor] = {}
        """What each term has added to the objective so far."""
        self.memory: dict[str, Any] = {}
        """What a host keeps from the pass's first call for the next ones."""

    def measure(
        self, term: Term, x: Any, value: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The term's strength, and its value on `x`."""
        strength = self.strengths[term]
        if term.strength.skips and self.training:
            return strength, in_turns(strength > 0, value, x, strength.dtype)
        found = value()
        return self.steered(term, x, found), found

    def steered(self, term: Term, x: Any, value: Tensor) -> Tensor:
        """The term's strength; in training, a state that adapts moves by the value."""
        if not (term.strength.adapts and self.training):
            return self.strengths[term]
        xs, total = self._seen.get(term, ([], 0.0))
        xs, total = [*xs, x], total + value
        strength, moved = term.strength.moved(
            self._numbers[term], self.strengths[term], xs, total
        )
        if len(xs) == 1:
            self.strengths[term] = strength
        self._seen[term] = xs, total
        self._state.move(term, moved)
        return self.strengths[term]
