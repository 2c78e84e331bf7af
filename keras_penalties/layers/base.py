"""The layer that hosts penalties: it owns all that changes while training."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_penalties import compat, config
from keras_penalties.compiling import in_step, in_turns, pays_to_fuse
from keras_penalties.penalties.base import Penalty, check_slopes
from keras_penalties.strengths import Lazy, Target, initial, replaced
from keras_penalties.typing import Tensor


@dataclass(frozen=True, eq=False)
class Term:
    """One term of an objective: a penalty, on a target, under a name in the logs."""

    name: str
    penalty: Penalty
    target: str
    """What is penalised: a weight's name in its layer, or `"output"`."""


class TermMean(keras.metrics.Metric):
    """The mean of a term, or of its strength, read from the sums that its layer keeps.

    It has no variables of its own: on JAX a metric's variables can't be assigned in
    `Layer.call`, but the layer's weights can.
    """

    def __init__(self, host: PenaltyLayer, term: Term, name: str, index: int) -> None:
        super().__init__(name=name, dtype="float32")
        # Methods, not the layer: saving walks attributes, and would go in circles.
        self._mean, self._reset = host.latest_mean, host.reset_sums
        self.term, self._index = term, index

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the layer's `call` does it."""

    def reset_state(self) -> None:
        """Set the layer's sums to zero."""
        self._reset()

    def result(self) -> Tensor:
        """The mean so far, each batch weighted by its size, as Keras' loss is."""
        return self._mean(self._index)


class PenaltyLayer(keras.layers.Layer):
    """A layer that adds terms to the loss in `call` and shows each in the logs.

    It owns, as non-trainable weights that are saved with the model: the strengths and
    the multipliers of targets, so that a changed one acts at once under every compiler;
    the sums for the logs; and a step counter where a strength is a schedule.

    The counter counts the forward passes in training, each once however often the layer
    is called in it, and no evaluation. They are the optimizer's steps, but for those
    that the optimizer alone knows of: each pass counts under gradient accumulation, and
    one whose step loss scaling skips. `Proximal` counts the steps themselves.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ledger = compat.LossLedger()
        self._traced = SimpleNamespace(means=None, terms={})
        # In a namespace no file is searched for their weights, of which they have none.
        self._shown = SimpleNamespace(means=[])
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
        moving = [t for t in self.terms if not isinstance(t.penalty.strength, float)]
        self._moving = tuple(moving)
        shown = [(t, t.name) for t in self.terms]
        shown += [(t, f"{t.name}_strength") for t in moving]
        self._shown.means = [TermMean(self, t, n, i) for i, (t, n) in enumerate(shown)]

    def build(self, input_shape: Any = None) -> None:
        """Create the weights that the terms need."""
        dtype = "float64" if self.variable_dtype == "float64" else "float32"
        strengths = [t.penalty.strength for t in self.terms]
        self.strengths = self._state("strengths", [*map(initial, strengths)], dtype)
        # Of many replicas each sums its own share of a batch, and the log is of all.
        shared: dict[str, Any] = {"aggregation": "sum", "synchronization": "on_read"}
        zeros = [0.0] * (len(self._shown.means) + 1)
        self.sums = self._state("sums", zeros, dtype, **shared)
        if any(isinstance(s, LearningRateSchedule) for s in strengths):
            self.steps = self._state("steps", 0, "int")
        self.built = True

    def _state(
        self, name: str, value: Any, dtype: str, trainable: bool = False, **kwargs: Any
    ) -> Any:
        """A weight in full precision, which `call` or, if trainable, training moves.

        It becomes a weight of the layer when it is set as an attribute.
        """
        start = np.asarray(value)  # not a tensor: `build` may run inside a trace
        return keras.Variable(  # `add_weight` has no `synchronization`
            lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            shape=start.shape,
            dtype=dtype,
            trainable=trainable,
            autocast=False,
            name=name,
            **kwargs,
        )

    def present_strengths(self) -> list[Tensor]:
        """Each term's strength at the present step; of a target, the multiplier."""
        # A copy: torch must not see change what a gradient will be computed from.
        present = list(ops.unstack(ops.copy(self.strengths)))
        for index, term in enumerate(self.terms):
            if isinstance(term.penalty.strength, LearningRateSchedule):
                scheduled = term.penalty.strength(self.steps)
                present[index] = ops.cast(scheduled, self.strengths.dtype)
        return present

    def strength(self, term: Term) -> Tensor:
        """The term's strength at the present step; of a target, the multiplier."""
        return self.present_strengths()[self.terms.index(term)]

    def _measured(
        self, term: Term, strength: Tensor, x: Any, training: bool | None
    ) -> tuple[Tensor, Tensor]:
        """The term's strength for this pass, and its value.

        The multiplier of a target moves, after the strength is taken from it.
        """
        dtype, given = self.strengths.dtype, term.penalty.strength

        def value() -> Tensor:
            return ops.cast(_value(term, x), dtype)

        if isinstance(given, Lazy) and not training:
            return ops.convert_to_tensor(given.strength, dtype), value()
        if isinstance(given, Lazy):
            return strength, in_turns(strength > 0, value, dtype)
        found = value()
        if training and isinstance(given, Target):
            moved, strength = given.step(strength, x, found)
            index = self.terms.index(term)
            self.strengths.assign(replaced(self.strengths, index, moved))
        return strength, found

    def _weighted(self, term: Term, strength: Tensor, value: Tensor) -> Tensor:
        """What a term adds to the loss."""
        return strength * value

    def acts(self, term: Term) -> bool:
        """Whether the term can change any weight: not one on a frozen weight."""
        return True

    def target_path(self, term: Term) -> str:
        """What the term penalises, named within the model."""
        return self.name

    @property
    def metrics(self) -> list[Any]:
        """The means of the terms that act, and the metrics of layers inside."""
        acting = {t for t in self.terms if not self.built or self.acts(t)}
        return [*(m for m in self._shown.means if m.term in acting), *super().metrics]

    def reset_sums(self) -> None:
        """Start a new mean in the logs."""
        if self.built:
            self.sums.assign(ops.zeros(self.sums.shape, self.sums.dtype))

    def latest_mean(self, index: int) -> Tensor:
        """One of the means for the logs, also inside a traced training step on JAX.

        There Keras computes the logs in a scope that knows no layer's weights.
        """
        if compat.in_stateless_scope() and self._traced.means is not None:
            return self._traced.means[index]
        sums = ops.unstack(self.sums.value)
        return ops.divide_no_nan(sums[index], sums[-1])

    def latest_terms(self) -> dict[Term, Tensor]:
        """What each term added to the loss in the last forward pass."""
        return self._traced.terms

    def _add_terms(
        self,
        targets: Mapping[Term, Any],
        inputs: Any,
        training: bool | None,
        outputs: Any = None,
    ) -> Any:
        """Add each term's `strength * value` of its target to the loss and the logs.

        Back comes what `call` gives out.
        """
        if not compat.losses_wanted():
            return outputs
        first_call = not self._ledger.is_open(self)
        added, strengths = {}, {}
        with compat.full_precision():
            present = dict(zip(self.terms, self.present_strengths(), strict=True))
            for term, x in targets.items():
                if not self._acts_or_says(term):
                    continue
                if term.target != "output" and not first_call:
                    continue  # a weight counts once, however often its layer is called
                strength, value = self._measured(term, present[term], x, training)
                added[term] = self._weighted(term, strength, value)
                strengths[term] = strength
            earlier = {} if first_call else self._traced.terms
            both = {t: x + earlier[t] if t in earlier else x for t, x in added.items()}
            self._traced.terms = {**earlier, **both}
            self._log(added, strengths if first_call else {}, inputs, first_call)
            if training and first_call and hasattr(self, "steps"):
                self.steps.assign_add(1)
        losses = []
        if added:
            total = functools.reduce(operator.add, added.values())
            weights = [targets[t] for t in added if t.target != "output"]
            if outputs is not None and any(map(pays_to_fuse, weights)):
                total, outputs = in_step(total, outputs)
            losses = [ops.cast(total, keras.config.floatx())]
        self._ledger.add(self, losses)
        return outputs

    def _log(
        self,
        added: Mapping[Term, Tensor],
        strengths: Mapping[Term, Tensor],
        inputs: Any,
        first_call: bool,
    ) -> None:
        """Add to the sums: the terms, the strengths that move, and the batch's size."""
        batch = ops.cast(ops.shape(_first_tensor(inputs))[0], self.sums.dtype)
        one, zero = (ops.convert_to_tensor(n, self.sums.dtype) for n in (1.0, 0.0))
        shown = [added.get(t, zero) for t in self.terms]
        shown += [strengths.get(t, zero) for t in self._moving]
        sums = batch * ops.stack([*shown, one if first_call else zero])
        self.sums.assign_add(ops.stop_gradient(sums))
        if compat.in_stateless_scope():
            sums = ops.convert_to_tensor(self.sums)
            self._traced.means = ops.divide_no_nan(sums[:-1], sums[-1])

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


def _value(term: Term, x: Any) -> Tensor:
    """The penalty's value on a weight, or on what a layer gives out.

    An output's extensive sum is divided by the batch size, as in Keras' activity slot;
    a statistic of the batch is not.
    """
    if term.target != "output":
        return term.penalty.value(x)
    total = 0.0
    for output in keras.tree.flatten(x):
        value = term.penalty.value(output)
        if not term.penalty.statistic:
            value = value / ops.cast(ops.shape(output)[0], value.dtype)
        total = total + value
    return total


def _first_tensor(inputs: Any) -> Tensor:
    return next(x for x in keras.tree.flatten(inputs) if x is not None)
