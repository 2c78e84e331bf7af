"""The logs of a layer's terms: the one place that knows the order of their sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import compat
from keras_penalties.hosting.state import Variable
from keras_penalties.hosting.term import Term
from keras_penalties.typing import Tensor

LOG_OPTIONS = ("rule", "weight", False)
"""Which entries the logs have: one a rule, one a term, or none."""


class Reading(keras.metrics.Metric):
    """A figure for the logs, read from the sums that a layer keeps.

    The metric has no variables of its own: on JAX a metric's variables can't be
    assigned in `Layer.call`, and a layer's weights can.
    """

    def __init__(
        self, name: str, read: Callable[[], Tensor], reset: Callable[[], None]
    ) -> None:
        super().__init__(name=name, dtype="float32")
        # Functions, not the layer: saving walks attributes, and would go in circles.
        self._read, self._reset = read, reset

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the layer's `call` updates the sums."""

    def reset_state(self) -> None:
        """Set the layer's sums to zero."""
        self._reset()

    def result(self) -> Tensor:
        """The figure since the last reset."""
        return self._read()


class TermMean(Reading):
    """The mean of some terms' sum, or of a strength, over the batches so far.

    Each batch is weighted by its size, as Keras' loss is.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        name: str,
        mean: Callable[[], Tensor],
        reset: Callable[[], None],
    ) -> None:
        super().__init__(name, mean, reset)
        self.terms = tuple(terms)


class TermLogs:
    """Sums over batches of the terms, of the strengths that are logged, and of sizes.

    They lie in one vector, a weight of the layer: the terms first, then the strengths,
    and the sum of the batches' sizes last. `names` are those of the entries.

    Args:
        terms: The host's terms.
        entries: The terms by the entry of the logs that shows their sum. An entry's
            strength is the mean over its terms. By default each term has its own.
        check: What the host wants checked before an epoch or an evaluation.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        entries: Mapping[str, Sequence[Term]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._terms, self._check = tuple(terms), check
        if entries is None:
            entries = {term.name: [term] for term in terms}
        self.names = tuple(entries)
        moving = {
            f"{name}_strength": [term for term in shown if term.strength.logged]
            for name, shown in entries.items()
        }
        moving = {name: shown for name, shown in moving.items() if shown}
        self._moving = tuple(moving.values())
        self._sums: Variable = None
        self._traced_means: Tensor | None = None
        place = {term: i for i, term in enumerate(self._terms)}
        means = [
            self._metric(name, shown, [place[term] for term in shown])
            for name, shown in entries.items()
        ]
        means += [
            self._metric(name, shown, [len(self._terms) + i])
            for i, (name, shown) in enumerate(moving.items())
        ]
        # In a plain object: Keras would search a list for weights to save.
        self._shown = SimpleNamespace(means=means)

    def _metric(
        self, name: str, terms: Sequence[Term], places: Sequence[int]
    ) -> TermMean:
        return TermMean(terms, name, lambda: self._mean(places), self.reset)

    @property
    def means(self) -> list[TermMean]:
        """The metrics that show the logs, in order."""
        found: list[TermMean] = self._shown.means
        return found

    def initial(self) -> np.ndarray:
        """What the sums start from."""
        return np.zeros(len(self._terms) + len(self._moving) + 1)

    def hold(self, sums: Variable) -> None:
        """Take the variable that the layer has created for the sums."""
        self._sums = sums

    def reset(self) -> None:
        """Start a new mean, as Keras does before each epoch and each evaluation."""
        self._check()
        if self._sums is not None:
            self._sums.assign(ops.zeros(self._sums.shape, self._sums.dtype))

    def add(
        self,
        added: Mapping[Term, Tensor],
        strengths: Mapping[Term, Tensor],
        batch: Tensor,
        first_call: bool,
    ) -> None:
        """Add one call's terms, and in a pass's first call the strengths and the size.

        Args:
            added: What each term adds to the objective; a missing one counts as 0.
            strengths: The strengths of the terms.
            batch: The number of samples.
            first_call: Whether the call is the first one of its pass.
        """
        dtype = self._sums.dtype
        one, zero = (ops.convert_to_tensor(n, dtype) for n in (1.0, 0.0))
        numbers = [added.get(t, zero) for t in self._terms]
        for terms in self._moving:
            present = [strengths[t] for t in terms if t in strengths and first_call]
            numbers.append(sum(present) / len(present) if present else zero)
        sums = ops.stack([*numbers, one if first_call else zero])
        sums = ops.cast(batch, dtype) * sums
        self._sums.assign_add(ops.stop_gradient(sums))
        if compat.in_stateless_scope():
            self._traced_means = self._means()

    def totals(self) -> tuple[dict[Term, float], float]:
        """The sum of each term since the last reset, and that of the batches' sizes."""
        sums = ops.convert_to_numpy(self._sums).astype("float64").tolist()
        return dict(zip(self._terms, sums, strict=False)), sums[-1]

    def _mean(self, places: Sequence[int]) -> Tensor:
        """The sum of some of the means, also inside a traced training step on JAX.

        There Keras computes the logs in a scope that knows no layer's weights.
        """
        traced = self._traced_means if compat.in_stateless_scope() else None
        means = self._means() if traced is None else traced
        if len(places) == 1:
            return means[places[0]]
        return ops.sum(ops.take(means, list(places)))  # a rule may have hundreds

    def _means(self) -> Tensor:
        """Each sum over the sum of the batches' sizes, and 0 before the first batch."""
        sums = ops.convert_to_tensor(self._sums.value)
        return sums[:-1] / ops.maximum(sums[-1], 1.0)
