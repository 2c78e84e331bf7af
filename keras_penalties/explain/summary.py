"""Each term of a model with what it comes to, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties.explain.measure import Measured, as_batch, gradient_norms, values
from keras_penalties.explain.parts import term_part
from keras_penalties.tables import html_lines, html_table, text_table
from keras_penalties.terms import TermInfo, terms

_HEAD = (
    "term",
    "host",
    "target",
    "formula",
    "strength",
    "value",
    "of the loss",
    "of the gradient",
    "zeros",
)


@dataclass(frozen=True)
class SummaryRow:
    """One term, or the rest of the loss, and what it comes to."""

    name: str
    host: str
    target: str
    formula: str
    strength: float | None
    """The strength in an evaluation; None for a regularizer of another package."""
    value: float | None
    """What the term adds: strength · penalty(target). None where only a batch tells."""
    loss_share: float | None = None
    """The value over the loss of the batch; None without a batch, and for a term that
    is not in the loss."""
    gradient_share: float | None = None
    """The norm of the term's gradient over the sum of the norms of all parts."""
    zeros: int | None = None
    """How many entries of the weight are exactly zero."""
    size: int | None = None
    """How many entries the weight has."""

    def cells(self) -> tuple[str, ...]:
        """The row of the printed table."""
        zeros = ""
        if self.zeros is not None:
            zeros = f"{self.zeros / max(self.size or 0, 1):.1%}"
        numbers = (_number(self.strength), _number(self.value))
        shares = (_percent(self.loss_share), _percent(self.gradient_share))
        words = (self.name, self.host, self.target, self.formula)
        return (*words, *numbers, *shares, zeros)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


@dataclass(frozen=True)
class Summary:
    """The terms of a model and what they come to. It prints as a table."""

    rows: tuple[SummaryRow, ...]
    loss: float | None
    """The loss of the batch in an evaluation; None without a batch."""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([text_table(self._table()), *self._lines()])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return f"{html_table(self._table())}\n{html_lines(self._lines())}"

    def _table(self) -> list[tuple[str, ...]]:
        """The cells, without the columns of shares if nothing was measured."""
        table = [_HEAD, *(row.cells() for row in self.rows)]
        if self.loss is not None:
            return table
        kept = [i for i, name in enumerate(_HEAD) if not name.startswith("of the")]
        return [tuple(row[i] for i in kept) for row in table]

    def _lines(self) -> list[str]:
        loss = [] if self.loss is None else [f"loss of the batch: {self.loss:.6g}"]
        return [*loss, *self.notes]


def summary(model: keras.Model, batch: Any = None) -> Summary:
    """Each term with its host, target, formula, strength and value now, and its zeros.

    With a batch also the value of the terms on outputs, and each term's share of the
    loss, as `evaluate` computes it, and of the gradient's norm, as a step of training
    has it: `‖∇term‖ / Σ‖∇part‖`. The first row then is the rest of the loss: the data
    loss, and what layers add that are not known. What is not in `loss` has no share: a
    term on a frozen weight, and one that the optimizer applies.

    Args:
        model: Any built Keras model; with a batch a compiled one.
        batch: `(x, y)`, `(x, y, sample_weight)`, or `x` alone for a model without
            targets. Default None. The model is left as it is.

    Returns:
        A `Summary`, which prints as a table.

    Raises:
        ValueError: if `model` is no layer, is not built yet, or is not compiled and a
            batch is given.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> dense = keras.layers.Dense(1, kernel_initializer="ones", name="line")
        >>> layer = kp.layers.Penalized(dense, weights={"kernel": "l2(0.5)"})
        >>> model = keras.Sequential([keras.Input((2,)), layer])
        >>> print(kp.summary(model))
        term            host   target       formula  strength  value  zeros
        line_kernel_l2  layer  line/kernel  Σx²      0.5       1      0.0%
        >>> model.compile("sgd", "mse")
        >>> table = kp.summary(model, (np.ones((4, 2)), np.zeros((4, 1))))
        >>> [(row.name, row.value, round(row.loss_share, 3)) for row in table.rows]
        [('data loss', 4.0, 0.8), ('line_kernel_l2', 1.0, 0.2)]
    """
    found = terms(model)
    notes = tuple(_notes(found))
    if batch is None:
        return Summary(tuple(_row(term) for term in found), None, notes)
    measured = as_batch(model, batch)
    now = values(model, found, measured)
    norms = gradient_norms(model, found, measured)
    rows = [_row(term, i, now, norms) for i, term in enumerate(found)]
    rest = SummaryRow(
        name="data loss",
        host="model",
        target="",
        formula="",
        strength=None,
        value=now.rest,
        loss_share=now.share(now.rest),
        gradient_share=norms.share(norms.rest),
    )
    loss = now.rest + sum(now.terms.values())
    return Summary((rest, *rows), loss, notes)


def _row(
    term: TermInfo,
    place: int = 0,
    now: Measured | None = None,
    norms: Measured | None = None,
) -> SummaryRow:
    value = term.present()
    share = slope = zeros = size = None
    if now is not None and norms is not None and place in now.terms:
        value = now.terms[place]
        share, slope = now.share(value), norms.share(norms.terms[place])
    if term.weight is not None:
        entries = ops.convert_to_numpy(term.weight)
        zeros, size = int(np.sum(entries == 0)), int(entries.size)
    return SummaryRow(
        name=term.name,
        host=term.host,
        target=term.target,
        formula=term_part(term).formula,
        strength=term.evaluated,
        value=value,
        loss_share=share,
        gradient_share=slope,
        zeros=zeros,
        size=size,
    )


def _notes(found: Any) -> list[str]:
    """What is not in the loss."""
    frozen = [t.name for t in found if not t.acts]
    beside = [t.name for t in found if t.acts and not t.in_loss]
    notes = []
    if frozen:
        notes.append(f"not counted, since the weight is frozen: {', '.join(frozen)}.")
    if beside:
        notes.append(f"not in `loss`, by the optimizer: {', '.join(beside)}.")
    return notes
