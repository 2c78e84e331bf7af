"""The layer that hosts penalties: it owns all that changes while training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_penalties import compat, config
from keras_penalties.numerics import Tensor
from keras_penalties.penalties.base import Penalty, check_slopes


@dataclass(frozen=True, eq=False)
class Term:
    """One term of an objective: a penalty, on a target, under a name in the logs."""

    name: str
    penalty: Penalty
    target: str
    """What is penalised: a weight's name in its layer, or `"output"`."""


class TermMean(keras.metrics.Metric):
    """The mean of one term over an epoch, read from the sums that its layer keeps.

    It has no variables of its own: on JAX a metric's variables can't be assigned in
    `Layer.call`, but the layer's weights can.
    """

    def __init__(self, host: PenaltyLayer, term: Term, index: int) -> None:
        super().__init__(name=term.name, dtype="float32")
        # Methods, not the layer: saving walks attributes, and would go in circles.
        self._sums, self._reset = host.latest_sums, host.reset_sums
        self.term, self._index = term, index

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the layer's `call` does it."""

    def reset_state(self) -> None:
        """Set the layer's sums to zero."""
        self._reset()

    def result(self) -> Tensor:
        """The mean so far, each batch weighted by its size, as Keras' loss is."""
        sums = self._sums()
        return ops.divide_no_nan(sums[self._index], sums[-1])


class PenaltyLayer(keras.layers.Layer):
    """A layer that adds terms to the loss in `call` and shows each in the logs.

    It owns, as non-trainable weights that are saved with the model: the strengths, so
    that a changed one acts at once under every compiler; the sums for the logs; and a
    step counter where a strength is a schedule.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ledger = compat.LossLedger()
        self._traced = SimpleNamespace(sums=None)
        self._said: set[str] = set()
        self.terms: tuple[Term, ...] = ()

    def _declare(self, terms: Iterable[Term]) -> None:
        """Say in `__init__` which terms this layer hosts; equal names get a number."""
        named: dict[str, Term] = {}
        for term in terms:
            check_slopes(term.penalty)
            name, count = term.name, 1
            while name in named:
                count += 1
                name = f"{term.name}_{count}"
            named[name] = Term(name, term.penalty, term.target)
        self.terms = tuple(named.values())
        self._means = [TermMean(self, t, i) for i, t in enumerate(self.terms)]

    def build(self, input_shape: Any = None) -> None:
        """Create the weights that the terms need."""
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        strengths = [t.penalty.strength for t in self.terms]
        constants = [s if isinstance(s, float) else 0.0 for s in strengths]
        self.strengths = self._state("strengths", constants, dtype)
        self.sums = self._state("sums", [0.0] * (len(strengths) + 1), dtype)
        if not all(isinstance(s, float) for s in strengths):
            self.steps = self._state("steps", 0, "int")
        self.built = True

    def _state(self, name: str, value: Any, dtype: str) -> Any:
        """A weight that only this layer's own `call` and its owner change."""
        start = np.asarray(value)  # not a tensor: `build` may run inside a trace
        return self.add_weight(
            name=name,
            shape=start.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            trainable=False,
            autocast=False,
        )

    def strength(self, term: Term) -> Tensor:
        """The term's strength at the present step."""
        if isinstance(term.penalty.strength, float):
            return self.strengths[self.terms.index(term)]
        return ops.cast(term.penalty.strength(self.steps), self.strengths.dtype)

    def acts(self, term: Term) -> bool:
        """Whether the term can change any weight: not one on a frozen weight."""
        return True

    def target_path(self, term: Term) -> str:
        """What the term penalises, named within the model."""
        return self.name

    @property
    def metrics(self) -> list[Any]:
        """The means of the terms that act, and the metrics of layers inside."""
        idle = {id(t) for t in self.terms if self.built and not self.acts(t)}
        return [m for m in super().metrics if id(getattr(m, "term", None)) not in idle]

    def reset_sums(self) -> None:
        """Start a new mean in the logs."""
        if self.built:
            self.sums.assign(ops.zeros(self.sums.shape, self.sums.dtype))

    def latest_sums(self) -> Tensor:
        """The sums for the logs, also inside a traced training step on JAX.

        There Keras computes the logs in a scope that knows no layer's weights.
        """
        if compat.in_stateless_scope() and self._traced.sums is not None:
            return self._traced.sums
        return self.sums.value

    def _add_terms(
        self,
        measures: Mapping[Term, Callable[[], Tensor]],
        inputs: Any,
        training: bool | None,
    ) -> None:
        """Add each term's `strength * measure()` to the loss and to the logs."""
        if not compat.losses_wanted():
            return
        first_call = not self._ledger.is_open(self)
        batch = ops.cast(ops.shape(_first_tensor(inputs))[0], self.sums.dtype)
        added = {}
        with compat.full_precision():
            for term, measure in measures.items():
                if not self._acts_or_says(term):
                    continue
                if term.target != "output" and not first_call:
                    continue  # a weight counts once, however often its layer is called
                value = ops.cast(measure(), self.strengths.dtype)
                added[term] = self.strength(term) * value
            zero = ops.zeros((), self.sums.dtype)
            logged = [batch * added[t] if t in added else zero for t in self.terms]
            sums = ops.stack([*logged, batch if first_call else zero])
            self.sums.assign_add(ops.stop_gradient(sums))
            if compat.in_stateless_scope():
                self._traced.sums = ops.convert_to_tensor(self.sums)
            if training and first_call and hasattr(self, "steps"):
                self.steps.assign_add(1)
        total = sum(added.values()) if added else None
        floatx = keras.config.floatx()
        self._ledger.add(self, [] if total is None else [ops.cast(total, floatx)])

    def _acts_or_says(self, term: Term) -> bool:
        if self.acts(term):
            return True
        if term.name not in self._said:
            self._said.add(term.name)
            warnings.warn(
                f"The term '{term.name}' does not act: {term.target} is frozen.",
                stacklevel=2,
            )
        return False

    @classmethod
    def from_config(cls, config_: dict[str, Any]) -> Self:
        """The layer that `get_config` described, nested penalties included."""
        layer: Self = config.from_config(cls, config_)
        return layer


def output_value(penalty: Penalty, outputs: Any) -> Tensor:
    """A penalty's value on what a layer gives out.

    An extensive sum is divided by the batch size, as in Keras' activity slot; a
    statistic of the batch is not.
    """
    total = 0.0
    for output in keras.tree.flatten(outputs):
        value = penalty.value(output)
        if not penalty.statistic:
            value = value / ops.cast(ops.shape(output)[0], value.dtype)
        total = total + value
    return total


def _first_tensor(inputs: Any) -> Tensor:
    return next(x for x in keras.tree.flatten(inputs) if x is not None)
