"""A path of models over strengths: its table, its choice, its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_penalties import checks
from keras_penalties.paths.picture import draw
from keras_penalties.tables import html_table, text_table
from keras_penalties.terms import set_strength, terms

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Point:
    """One model of a path: its strengths, how good it is, and how sparse."""

    place: int
    """Its place on the path, from 0 on."""
    strengths: dict[str, float]
    """The strength of each term that the path moves, by the name of the term."""
    values: dict[str, float]
    """`loss` and the compiled metrics on the training data, and the same with `val_` on
    the validation data: of the weights as they are at the end of the training."""
    standard_error: float | None
    """Of `val_loss`; None without two batches of validation data."""
    nonzeros: int
    """How many entries of the penalised weights are not zero."""
    groups: int | None
    """How many groups of `Grouped` are not zero; None without such a penalty."""
    file: File | None = field(default=None, repr=False, compare=False)
    """Where its weights lie, if the path has a folder."""
    arrays: tuple[Array, ...] = field(default=(), repr=False, compare=False)
    """Its weights, if the path has no folder."""

    @property
    def weights(self) -> tuple[Array, ...]:
        """The values of the trained weights of the model, then those of all others."""
        if self.file is None:
            return self.arrays
        with np.load(self.file) as stored:
            return tuple(stored[f"weight_{i}"] for i in range(len(stored.files) - 1))


@dataclass(frozen=True, repr=False)
class Path:
    """The points of a path, in the order of training. Prints as a table."""

    points: tuple[Point, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict for each point, with the columns of the table."""
        return [self._row(point) for point in self.points]

    def best(
        self,
        metric: str = "val_loss",
        mode: str = "min",
        one_standard_error: bool = False,
    ) -> Point:
        """The best point by a value, or the sparsest one that is nearly as good.

        With `one_standard_error`, which is for `val_loss`, it is the point with the
        fewest nonzeros whose `val_loss` is at most that of the best point plus the
        standard error there. The error is glmnet's, `√(Σ n·(L − L̄)² / Σ n / (K − 1))`,
        with K batches of the validation data, of n samples and of loss L, in the place
        of glmnet's folds. Arrays are cut into ten batches, as glmnet has ten folds.

        Args:
            metric: A name among the values of a point. Default `"val_loss"`.
            mode: `"min"` or `"max"`, whichever is better. Default `"min"`.
            one_standard_error: Whether to take the sparsest within one standard error.
                Default False.

        Raises:
            ValueError: if no point has that value, or the error is not known.
        """
        checks.one_of("mode", mode, ("min", "max"))
        known = sorted({name for point in self.points for name in point.values})
        checks.one_of("metric", metric, known)
        sign = 1.0 if mode == "min" else -1.0
        finite = [p for p in self.points if math.isfinite(p.values[metric])]
        if not finite:
            checks.refuse("metric", "a value that is finite at some point", metric)
        found = min(finite, key=lambda p: sign * p.values[metric])
        if not one_standard_error:
            return found
        if metric != "val_loss" or found.standard_error is None:
            expected = "False, except for 'val_loss' of two batches or more"
            checks.refuse("one_standard_error", expected, one_standard_error)
        bound = found.values[metric] + found.standard_error
        near = [p for p in finite if p.values[metric] <= bound]
        return min(near, key=lambda p: (p.nonzeros, p.values[metric]))

    def restore(self, model: keras.Model, point: Point) -> None:
        """Give a model the weights of a point, and its strengths.

        Args:
            model: The model of the path, or one that is built alike. Its terms get the
                strengths of the point where they have the names that the point has; a
                model that is not compiled has none of them.
            point: One of `points`.

        Raises:
            ValueError: if the model has weights of other shapes.
        """
        variables = variables_of(model)
        shapes = [tuple(v.shape) for v in variables]
        if shapes != [a.shape for a in point.weights]:
            checks.refuse("model", "the model of the path, or one built alike", model)
        for variable, array in zip(variables, point.weights, strict=True):
            variable.assign(array)
        names = {term.name for term in terms(model)}
        for name in names.intersection(point.strengths):
            set_strength(model, name, point.strengths[name])

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses and the nonzeros over the strength; needs matplotlib.

        Args:
            ax: Matplotlib axes to draw on. Default: new ones.

        Returns:
            The matplotlib axes.
        """
        return draw(self, ax)

    def __str__(self) -> str:
        return text_table(self._table())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return html_table(self._table())

    def _row(self, point: Point) -> dict[str, Any]:
        row: dict[str, Any] = {"point": point.place}
        if self.common:
            row["strength"] = next(iter(point.strengths.values()))
        else:
            row.update(point.strengths)
        row.update(point.values)
        row["nonzeros"] = point.nonzeros
        if point.groups is not None:
            row["groups"] = point.groups
        return row

    @property
    def common(self) -> bool:
        """Whether all terms have one strength at each point."""
        return all(len(set(p.strengths.values())) == 1 for p in self.points)

    def _table(self) -> Sequence[Sequence[str]]:
        rows = self.rows
        body = [[_cell(value) for value in row.values()] for row in rows]
        return [list(rows[0]), *body] if rows else [["point"]]


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def variables_of(model: Any) -> list[Any]:
    """The weights of a model and the state of its layers: what a point restores."""
    return [*model.trainable_variables, *model.non_trainable_variables]
