"""What each part of an objective is on a batch: its value, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.autodiff import value_and_pullback
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.numerics import joined, parted, widened
from keras_penalties.terms import TermInfo
from keras_penalties.typing import Tensor


@dataclass(frozen=True)
class Batch:
    """The tensors of one batch, as `fit` takes them."""

    x: Any
    y: Any = None
    sample_weight: Any = None


def as_batch(model: Any, batch: Any) -> Batch:
    """The batch that a user gave: `(x, y)` or `(x, y, sample_weight)`, or `x` alone.

    Raises:
        ValueError: if it is none, or `model` is not compiled.
    """
    if not getattr(model, "compiled", False):
        checks.refuse("model", "a compiled model, to be measured on a batch", model)
    parts = batch if isinstance(batch, tuple) else (batch,)
    if not 1 <= len(parts) <= 3:
        checks.refuse("batch", "`(x, y)` or `(x, y, sample_weight)`", batch)
    return Batch(*(keras.tree.map_structure(_tensor, part) for part in parts))


def _tensor(x: Any) -> Any:
    return None if x is None else ops.convert_to_tensor(x)


@dataclass(frozen=True)
class Measured:
    """One number for each part of a loss; terms by their places in `terms(model)`."""

    rest: float
    """Of what is no term: the data loss, and what other layers add."""
    terms: dict[int, float]
    """Of the terms that are in the loss and that Keras tells apart."""

    def share(self, part: float) -> float:
        """A part over the sum of all."""
        total = self.rest + sum(self.terms.values())
        return part / total if total else 0.0


def values(model: Any, terms: Sequence[TermInfo], batch: Batch) -> Measured:
    """What each part adds to the loss in an evaluation."""
    mapping = [(w, w.value) for w in model.trainable_variables]
    # In a scope, so that the model stays as it is.
    with keras.StatelessScope(mapping, collect_losses=True):
        rest, parts = _parts(model, terms, batch, training=False)
    return Measured(_number(rest), {i: _number(part) for i, part in parts.items()})


def gradient_norms(model: Any, terms: Sequence[TermInfo], batch: Batch) -> Measured:
    """The norm of each part's gradient in all trained weights, in a step of training.

    One forward pass serves all parts, and each part has a backward pass of its own.
    """
    weights = model.trainable_variables
    if not weights:
        checks.refuse("model", "a model with a weight that is trained", model)
    places: list[int] = []

    def stacked(vector: Tensor) -> Tensor:
        mapping = list(zip(weights, parted(vector, weights), strict=True))
        with keras.StatelessScope(mapping, collect_losses=True):
            rest, parts = _parts(model, terms, batch, training=True)
        places[:] = parts
        return ops.stack([ops.cast(x, vector.dtype) for x in (rest, *parts.values())])

    value, pullback = value_and_pullback(stacked, joined(weights))
    picks = ops.unstack(ops.eye(len(places) + 1, dtype=value.dtype))
    rest, *norms = (_number(ops.norm(pullback(pick))) for pick in picks)
    return Measured(rest, dict(zip(places, norms, strict=True)))


def _number(x: Tensor) -> float:
    return float(ops.convert_to_numpy(x))


def _parts(
    model: Any, terms: Sequence[TermInfo], batch: Batch, training: bool
) -> tuple[Tensor, dict[int, Tensor]]:
    """The rest of the loss, and each term that is in the loss, by its place."""
    predicted = model(batch.x, training=training)
    loss = model.compute_loss(batch.x, batch.y, predicted, batch.sample_weight)
    loss = widened(loss)
    added = {i: _added(t, terms) for i, t in enumerate(terms) if t.in_loss}
    known = {i: ops.cast(v, loss.dtype) for i, v in added.items() if v is not None}
    return loss - sum(known.values()), known


def _added(term: TermInfo, terms: Sequence[TermInfo]) -> Tensor | None:
    """What a term has added in the present pass; None where Keras does not tell."""
    if term.host == "layer":
        return term.owner.latest_terms().get(term.term, 0.0)
    if term.weight is not None:
        return term.penalty(ops.convert_to_tensor(term.weight))
    sharing = [t for t in terms if t.owner is term.owner and t.weight is None]
    if len(sharing) > 1 or isinstance(term.owner, PenaltyLayer):
        return None  # Keras keeps one number for all that a layer adds
    return sum(compat.own_losses(term.owner))
