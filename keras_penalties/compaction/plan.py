"""What `compact` does to a model: found, told and done."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_penalties.compaction.rebuild import Rebuild
from keras_penalties.compaction.trace import BY_DESIGN, Kept, Trace, Use


@dataclass(frozen=True)
class Row:
    """What becomes of one layer's channels."""

    layer: str
    kind: str
    before: int
    after: int
    held: int
    """How many are constant for every input, and stay all the same."""
    why: str
    """Why those stay, or the layer is kept whole; empty if neither."""
    whole: bool
    """Whether the layer is kept as it is."""


class Plan:
    """Which channels of a model go. Prints as a table; `apply` makes the model.

    Args:
        model: A built Functional or Sequential model.

    Raises:
        ValueError: if `model` is something else.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> layers = [keras.layers.Dense(3, name="hidden"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((2,)), *layers])
        >>> _ = layers[0].kernel.assign(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]))
        >>> row = kp.compaction.Plan(model).rows[0]
        >>> row.layer, row.before, row.after
        ('hidden', 3, 2)
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.trace = Trace(model)
        self.kept = Kept(self.trace)
        uses = self.trace.uses.values()
        self.rows = tuple(
            self._row(use) for use in uses if getattr(use.layer, "weights", ())
        )

    def _row(self, use: Use) -> Row:
        output = use.rule.output
        stays = self.kept.mask(output.ids)
        held = output.ids[stays & ~np.isnan(output.constants)]
        reasons = Counter(self.kept.reasons(held)).most_common(1)
        return Row(
            layer=use.layer.name,
            kind=type(use.layer).__name__,
            before=len(output.ids),
            after=int(stays.sum()),
            held=len(held),
            why=use.rule.whole or (reasons[0][0] if reasons else ""),
            whole=use.rule.whole is not None,
        )

    def apply(self) -> Any:
        """The smaller model."""
        return Rebuild(self.trace, self.kept).model(self.model)

    def __str__(self) -> str:
        head = ("layer", "kind", "before", "after", "constant, kept", "why")
        cells = [
            (r.layer, r.kind, str(r.before), str(r.after), str(r.held or ""), r.why)
            for r in self.rows
        ]
        return table([head, *cells])


def compact(model: keras.Model) -> Any:
    """The same model without the units, filters and channels that do nothing.

    A unit goes if nothing reads it, or if its output is constant: `act(bias)` for one
    whose incoming weights are zero, which the biases of its readers then say. What is
    left is an ordinary Keras model, of the same class, that gives the same outputs: its
    layers have the same names and what remains of their weights. If the model was
    compiled, so is this one, with a fresh optimizer of the same config. In training
    the two differ, as what is gone can't come back.

    A layer that can't be followed, such as attention, keeps all its channels, and so
    does whoever it reads. A warning says if that, or something else, holds a constant
    unit; `kp.compaction.Plan(model)` prints as a table of what happens to each layer.

    Args:
        model: A built Functional or Sequential model; it stays as it is.

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
    held = [row for row in plan.rows if row.held and row.why not in BY_DESIGN]
    if held:
        told = "; ".join(f"{r.held} of '{r.layer}' ({r.why})" for r in held)
        warnings.warn(
            f"These channels are constant and stay: {told}. "
            "kp.compaction.Plan(model) says more.",
            stacklevel=2,
        )
    return plan.apply()


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of cells, aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
