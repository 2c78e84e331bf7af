"""The optimizer that hosts terms on the weights that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_penalties.anchors import hosted
from keras_penalties.hosting.anchors import Anchors
from keras_penalties.hosting.state import TermState, Variable
from keras_penalties.hosting.term import Term
from keras_penalties.optimizers.assignment import checked, matched
from keras_penalties.optimizers.wrapper import Wrapper
from keras_penalties.typing import Tensor


class PenaltyOptimizer(Wrapper):
    """Another optimizer with penalties on some of the weights that it trains.

    The terms' state lies in the inner optimizer's own variables, so that whatever takes
    its step back, as loss scaling does, takes the state back too.
    """

    proximal: ClassVar[bool]
    """Whether the penalties act by their proximal maps, and not by their gradients."""

    def __init__(
        self, inner: Any, penalties: Mapping[str, Any], name: str | None = None
    ) -> None:
        super().__init__(inner, name)
        self.penalties = checked(penalties, self.proximal)
        self.terms: tuple[Term, ...] = ()

    @property
    def per_entry(self) -> bool:
        """Whether the inner optimizer has a step size for each entry."""
        return False

    def build(self, variables: Sequence[Any]) -> None:
        """Find the penalised weights; create the inner state and that of the terms."""
        if self.built:
            return
        self._assigned = matched(
            self.penalties, variables, self.per_entry, self.proximal
        )
        self.terms = tuple(t for a in self._assigned.values() for t in a.terms)
        super().build(variables)
        self._build_steps(variables)
        self.state = TermState(self.terms, self.inner.assign)
        # By value: TensorFlow gives a name to each `keras.Variable` in a list.
        strengths = self._variable("strengths", self.state.initial())
        self.state.hold(strengths, {})
        self.anchors = Anchors(self.inner.assign)
        for index, assigned in self._assigned.items():
            weight = variables[index]
            self.anchors.create(
                assigned.terms,
                lambda _, weight=weight: weight.shape,  # type: ignore[misc]
                lambda name, array, weight=weight: self._variable(  # type: ignore[misc]
                    name, array, weight
                ),
            )

    def _build_steps(self, variables: Sequence[Any]) -> None:
        """Create what else must be kept from step to step."""

    def _variable(self, name: str, start: np.ndarray, like: Any = None) -> Variable:
        """A variable of the inner optimizer, laid out on devices as a weight is."""
        same = like is not None and tuple(like.shape) == start.shape
        layout = getattr(like, "_layout", None) if same else None
        return self.inner.add_variable(
            shape=start.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            dtype="float64" if keras.config.floatx() == "float64" else "float32",
            aggregation="only_first_replica",
            layout=layout,
            name=name,
        )

    def present_strength(self, term: Term) -> Tensor:
        """The term's strength at the present step; of a target, the multiplier."""
        return self.state.strength(term, self.iterations)

    def get_config(self) -> dict[str, Any]:
        """The arguments, nested objects included, without arrays that are weights."""
        serialize = keras.saving.serialize_keras_object
        parts = [part for p in self.penalties.values() for part in p.parts()]
        with hosted(parts):
            penalties = {p: serialize(given) for p, given in self.penalties.items()}
        return {**super().get_config(), "penalties": penalties}
