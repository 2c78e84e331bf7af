"""What a code does on data, batch by batch, in memory that does not grow with the data.

For each unit the largest activations are kept, and of the rows only those in which one
of them is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.dictionary.figures import Array


def batches(data: Any, size: int) -> Iterator[Array]:
    """Batches of rows, of an array or of an iterable of batches.

    Of a batch `(x, y)` or `(x, y, sample_weight)` it is x.
    """
    if isinstance(data, keras.utils.PyDataset):
        found: Iterable[Any] = (data[i] for i in range(data.num_batches or 0))
    elif hasattr(data, "shape") and len(data.shape) == 2:
        found = (data[i : i + size] for i in range(0, data.shape[0], size))
    elif hasattr(data, "shape") or isinstance(data, tuple | str | dict):
        wanted = "an array of shape (rows, features), or an iterable of batches of such"
        checks.refuse("data", f"{wanted}: of a tuple (x, y) give x", data)
    else:
        found = checks.instance("data", data, Iterable)
    for batch in found:
        x = batch[0] if isinstance(batch, tuple | list) and batch else batch
        rows = checks.array("data", x, 2).astype("float32")
        if len(rows):
            yield rows


class TopRows:
    """For each unit the rows with its largest activations, in order.

    Of equal activations the earlier row comes first.

    Args:
        units: The number of units.
        size: How many rows are kept for each unit.
        threshold: Only an activation whose size is above it counts.
    """

    def __init__(self, units: int, size: int, threshold: float) -> None:
        self.index = np.full((units, size), -1)
        """The rows' places in the data, −1 where there are fewer."""
        self.value = np.zeros((units, size), "float32")
        self._threshold = threshold

    def add(self, code: Array, start: int) -> None:
        """Add a batch, whose first row has the place `start` in the data."""
        size = self.index.shape[1]
        least = np.maximum(np.abs(self.value[:, -1]), self._threshold)
        # Few candidates are left once the first batches are in.
        row, new = np.nonzero(np.abs(code) > least)
        units = np.unique(new)
        unit = np.concatenate([np.repeat(units, size), new])
        value = np.concatenate([self.value[units].ravel(), code[row, new]])
        index = np.concatenate([self.index[units].ravel(), start + row])
        order = np.lexsort((index, index < 0, -np.abs(value), unit))
        unit, value, index = unit[order], value[order], index[order]
        rank = np.arange(len(unit)) - np.searchsorted(unit, unit)
        kept = rank < size
        self.value[unit[kept], rank[kept]] = value[kept]
        self.index[unit[kept], rank[kept]] = index[kept]


class Variance:
    """The sum of squares around the mean of all rows so far, over all features."""

    def __init__(self) -> None:
        self._count, self._mean, self.total = 0, np.zeros(()), 0.0

    def add(self, rows: Array) -> None:
        """Add a batch, by the formula of Chan, Golub and LeVeque, 1979."""
        mean = rows.mean(axis=0)
        count = self._count + len(rows)
        apart = float(np.sum((mean - self._mean) ** 2)) if self._count else 0.0
        between = self._count * len(rows) / count * apart
        self.total += float(np.sum((rows - mean) ** 2)) + between
        self._mean = self._mean + (mean - self._mean) * len(rows) / count
        self._count = count


class Tally:
    """All that is counted on the way through the data.

    Args:
        model: What has `encode(x)`, and `decode(code)` if it can.
        shape: The number of units and of features of its dictionary.
        examples: How many rows are kept for each unit.
        threshold: A unit is active where its size is above it.
        keep: Whether the rows themselves are kept, as for pictures.
    """

    def __init__(
        self,
        model: Any,
        shape: tuple[int, int],
        examples: int,
        threshold: float,
        keep: bool,
    ) -> None:
        self._model, self._shape, self._threshold = model, shape, threshold
        self._decode = getattr(model, "decode", None)
        self.top = TopRows(shape[0], examples, threshold)
        self.kept: dict[int, Array] | None = {} if keep else None
        self.rows = 0
        self.active = np.zeros(shape[0])
        """For each unit the number of rows in which it is active."""
        self.sums = np.zeros(shape[0])
        """For each unit the sum of its activations."""
        self._residual, self._variance = 0.0, Variance()

    def add(self, x: Array) -> None:
        """Add a batch of rows."""
        if x.shape[1] != self._shape[1]:
            checks.refuse("data", f"rows of {self._shape[1]} features", x)
        given = self._model.encode(ops.convert_to_tensor(x))
        code = self._checked(given, len(x))
        self.top.add(code, self.rows)
        self.active += np.count_nonzero(np.abs(code) > self._threshold, axis=0)
        self.sums += code.sum(axis=0, dtype="float64")
        wide = x.astype("float64")
        self._variance.add(wide)
        if self._decode is not None:
            self._residual += float(np.sum((wide - _array(self._decode(given))) ** 2))
        if self.kept is not None:
            self._keep(self.kept, x)
        self.rows += len(x)

    def _checked(self, given: Any, rows: int) -> Array:
        code, wanted = _array(given), (rows, self._shape[0])
        if code.shape != wanted or not np.all(np.isfinite(code)):
            expected = f"a model whose `encode` gives finite codes of shape {wanted}"
            checks.refuse("model", f"{expected}, as its dictionary is", code)
        return code

    def _keep(self, kept: dict[int, Array], x: Array) -> None:
        """Keep the rows that are among the top of a unit now, and forget the others."""
        wanted = set(np.unique(self.top.index).tolist()) - {-1}
        for gone in kept.keys() - wanted:
            del kept[gone]
        for index in wanted:
            if index >= self.rows:
                kept[index] = x[index - self.rows].copy()

    @property
    def mse(self) -> float | None:
        """The mean squared error of the reconstructions."""
        if self._decode is None:
            return None
        return self._residual / (self.rows * self._shape[1])

    @property
    def explained_variance(self) -> float | None:
        """As `metrics.ExplainedVariance` has it."""
        if self._decode is None:
            return None
        if self._variance.total == 0:
            return float(self._residual == 0)
        return 1.0 - self._residual / self._variance.total


def _array(tensor: Any) -> Array:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))
