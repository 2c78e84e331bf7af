"""The plan of what `compact` removes from a model, as a table, and its execution."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np

from keras_penalties import checks
from keras_penalties.compaction.rebuild import Rebuild
from keras_penalties.compaction.trace import EXPECTED, Kept, Trace, TracedLayer
from keras_penalties.tables import html_table, text_table


@dataclass(frozen=True)
class Row:
    """How many channels of one layer stay, and why."""

    layer: str
    kind: str
    before: int
    after: int
    held: int
    """How many channels stay although they are constant for every input."""
    why: str
    """Why those stay, or why the layer is kept as it is. Empty if neither holds."""
    unchanged: bool
    """Whether the layer is kept as it is."""


class Plan:
    """The channels of a model that `compact` removes. It prints as a table.

    Args:
        model: A built Functional or Sequential model.

    Raises:
        ValueError: if `model` is not a built Functional or Sequential model.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> layers = [keras.layers.Dense(3, name="hidden"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> _ = layers[0].kernel.assign(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]))
        >>> row = kp.compaction.Plan(model).rows[0]
        >>> row.layer, row.before, row.after
        ('hidden', 3, 2)
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.trace = Trace(model)
        self.kept = Kept(self.trace)
        self.rows = tuple(
            self._row(traced)
            for traced in self.trace.layers.values()
            if getattr(traced.layer, "weights", ())
        )

    def _row(self, traced: TracedLayer) -> Row:
        output = traced.rule.output
        stays = self.kept.mask(output.ids)
        held = output.ids[stays & ~np.isnan(output.constants)]
        reasons = Counter(self.kept.reasons(held)).most_common(1)
        return Row(
            layer=traced.layer.name,
            kind=type(traced.layer).__name__,
            before=len(output.ids),
            after=int(stays.sum()),
            held=len(held),
            why=traced.rule.unchanged or (reasons[0][0] if reasons else ""),
            unchanged=traced.rule.unchanged is not None,
        )

    @property
    def removes_nothing(self) -> bool:
        """Whether every channel of every layer stays."""
        return all(row.before == row.after for row in self.rows)

    def reasons(self) -> list[tuple[str, int]]:
        """Why channels stay, and how many for each reason, the most frequent first."""
        counts: Counter[str] = Counter()
        for traced in self.trace.layers.values():
            if getattr(traced.layer, "weights", ()):
                counts.update(self.kept.reasons(traced.rule.output.ids))
        return counts.most_common()

    def apply(self) -> keras.Model:
        """Make the smaller model."""
        return Rebuild(self.trace, self.kept).model(self.model)

    def __str__(self) -> str:
        return text_table(self._table())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return html_table(self._table())

    def _table(self) -> list[tuple[str, ...]]:
        head = ("layer", "kind", "before", "after", "constant, kept", "why")
        cells = [
            (r.layer, r.kind, str(r.before), str(r.after), str(r.held or ""), r.why)
            for r in self.rows
        ]
        return [head, *cells]


def compact(model: keras.Model) -> keras.Model:
    """Make the same model without the units, filters and channels that do nothing.

    A unit is removed if no layer reads it, or if its output is constant: a unit whose
    incoming weights are all zero always gives `activation(bias)`. The biases of the
    layers that read a constant unit take over its value.

    The result is an ordinary Keras model of the same class that gives the same outputs.
    Its layers have the same names and the rest of the weights. If the model was
    compiled, the result is compiled too, with a new optimizer of the same config. In
    training the two models differ, as a removed unit can't become nonzero again.

    A layer that `compact` does not know, such as attention, keeps all its channels, and
    the layers that it reads keep theirs. `kp.compaction.Plan(model)` prints a table of
    what happens to each layer. A `UserWarning` says if a constant unit stays, or if
    nothing was removed, and why.

    Args:
        model: A built Functional or Sequential model. It is not changed.

    Returns:
        A new model.

    Raises:
        ValueError: if `model` is a subclassed model or not built.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> layers = [keras.layers.Dense(3, "relu"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> _ = layers[0].kernel.assign(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]))
        >>> kp.compact(model).layers[0].units
        2
    """
    plan = Plan(model)
    messages = []
    if plan.removes_nothing:
        why = "; ".join(f"{n} because {reason}" for reason, n in plan.reasons()[:3])
        messages.append(f"`compact` removed nothing. Channels that stay: {why}.")
    held = [row for row in plan.rows if row.held and row.why not in EXPECTED]
    if held:
        layers = "; ".join(f"{r.held} of '{r.layer}' because {r.why}" for r in held)
        messages.append(f"Channels that stay although they are constant: {layers}.")
    if messages:
        text = checks.shortened(" ".join(messages), 1500)
        more = "Print `kp.compaction.Plan(model)` for a table of all layers."
        warnings.warn(f"{text} {more}", stacklevel=2)
    return plan.apply()
