"""The figures of a dictionary on data, as text and for a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_penalties.dictionary.figures import Array
from keras_penalties.tables import html_lines, html_table, text_table


@dataclass(frozen=True, eq=False, repr=False)
class DictionaryReport:
    """What `dictionary_report` found. Prints as a table."""

    title: str
    """The model's name."""
    rows: int
    """The number of rows of the data."""
    density: Array
    """For each unit the share of the rows in which it is active."""
    mean_activation: Array
    """For each unit the mean of its activation over all rows."""
    l0: float
    """The mean number of active units in a row."""
    mse: float | None
    """The mean squared error, None for a model without `decode`."""
    explained_variance: float | None
    """As `metrics.ExplainedVariance` has it, None for a model without `decode`."""
    top_rows: Array
    """(units, examples): the places in the data of the rows with the largest
    activations, the largest first, −1 where a unit is active in fewer rows."""
    top_values: Array
    """(units, examples): those activations, 0 where there are fewer."""
    neighbour: Array
    """For each unit the other one whose direction has the largest cosine with its."""
    neighbour_cosine: Array
    """That cosine."""
    known_cosines: Array | None
    """For each known direction the largest cosine with a unit's."""
    dictionary: Array
    """(units, features): the directions, as the model has them."""
    shown: tuple[int, ...]
    """The units that the page shows one by one."""
    examples: Mapping[int, Array]
    """The rows of `top_rows`, by their places, where `images_shape` was given."""
    images_shape: tuple[int, ...] | None
    names: Sequence[str] | None

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.density)

    @property
    def dead(self) -> Array:
        """The units that are active in no row."""
        return np.flatnonzero(self.density == 0)

    @property
    def mmcs(self) -> float | None:
        """The mean max cosine similarity with the known directions, as `mmcs` has it.

        None if no known directions were given.
        """
        return None if self.known_cosines is None else float(self.known_cosines.mean())

    def figures(self) -> list[tuple[str, str]]:
        """Each figure of the whole with its name, as text."""
        dead = len(self.dead)
        found = [
            ("rows", f"{self.rows:,}"),
            ("units", f"{self.units:,}"),
            ("L0", f"{self.l0:.4g}"),
            ("dead units", f"{dead:,} ({dead / self.units:.1%})"),
        ]
        if self.explained_variance is not None:
            found.append(("explained variance", f"{self.explained_variance:.4f}"))
        if self.mse is not None:
            found.append(("mean squared error", f"{self.mse:.4g}"))
        if self.mmcs is not None:
            found.append(("MMCS", f"{self.mmcs:.4f}"))
        return found

    def line(self, unit: int) -> tuple[str, str, str, str]:
        """What a unit does, in words: its density, its mean, its top, its neighbour."""
        top, near = self.top_values[unit, 0], self.neighbour[unit]
        beside = f"{self.neighbour_cosine[unit]:.2f} (unit {near})" if near >= 0 else ""
        density, mean = self.density[unit], self.mean_activation[unit]
        return f"{density:.2%}", f"{mean:.3g}", f"{top:.3g}", beside

    def table(self) -> list[tuple[str, ...]]:
        """The shown units, a row each, under a head."""
        head = ("unit", "active in", "mean", "largest", "nearest cosine", "top rows")
        rows = [(str(u), *self.line(u), self._top(u)) for u in self.shown]
        return [head, *rows]

    def _top(self, unit: int) -> str:
        return ", ".join(str(i) for i in self.top_rows[unit, :3] if i >= 0)

    def __str__(self) -> str:
        head = text_table(self.figures())
        return f"{head}\n\n{text_table(self.table())}"

    def __repr__(self) -> str:
        return f"<DictionaryReport of {self.units} units on {self.rows} rows>"

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        lines = [f"{name}: {value}" for name, value in self.figures()]
        return f"{html_lines(lines)}\n{html_table(self.table())}"
