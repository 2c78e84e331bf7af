"""How good and how sparse a model is at a point of its path."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_penalties.compiling import compiled
from keras_penalties.datasets import as_arrays, batches, check_finite, samples_of
from keras_penalties.numerics import joined
from keras_penalties.paths.batch_loss import batch_loss, state_of
from keras_penalties.paths.zeroing import Zeroing
from keras_penalties.penalties.grouped import Grouped

FOLDS = 10
"""Into how many batches arrays are cut for the standard error, as glmnet has folds."""


@dataclass(frozen=True)
class Data:
    """What `fit` and `evaluate` take: arrays, or a dataset that has an end."""

    argument: str
    x: Any
    y: Any
    sample_weight: Any
    batch_size: int

    def __post_init__(self) -> None:
        if self.samples is None:
            check_finite(self.argument, self.x)

    @functools.cached_property
    def samples(self) -> int | None:
        """How many samples arrays have; None of a dataset."""
        arrays = as_arrays(self.argument, (self.x, self.y, self.sample_weight))
        return None if arrays is None else samples_of(arrays)

    def arguments(self) -> dict[str, Any]:
        """The arguments of `fit` and of `evaluate`."""
        size = None if self.samples is None else self.batch_size
        weights = {"sample_weight": self.sample_weight, "batch_size": size}
        return {"x": self.x, "y": self.y, **weights}


class Measure:
    """Measures a model as it is.

    Args:
        model: The model.
        data: What the model is trained on.
        held: The validation data, or None.
    """

    def __init__(self, model: Any, data: Data, held: Data | None) -> None:
        self.model, self.data, self.held = model, data, held
        self._loss = compiled(batch_loss(model))

    def values(self) -> dict[str, float]:
        """The loss and the metrics, those of the validation data by `val_`."""
        found = self._evaluated("", self.data)
        return (
            found if self.held is None else found | self._evaluated("val_", self.held)
        )

    def standard_error(self) -> float | None:
        """Of the validation loss: see `Path.best`."""
        if self.held is None:
            return None
        held, size = self.held, self.held.batch_size
        if held.samples is not None:
            size = min(size, math.ceil(held.samples / FOLDS))
        vector, state = joined(self.model.trainable_variables), state_of(self.model)
        losses, sizes = [], []
        for batch in batches(held.x, held.y, held.sample_weight, size):
            losses.append(float(ops.convert_to_numpy(self._loss(vector, state, batch))))
            sizes.append(samples_of(batch[0]))
        if len(losses) < 2:
            return None
        mean = np.average(losses, weights=sizes)
        spread = np.average(np.square(np.subtract(losses, mean)), weights=sizes)
        return math.sqrt(spread / (len(losses) - 1))

    def _evaluated(self, prefix: str, data: Data) -> dict[str, float]:
        given = data.arguments()
        found = self.model.evaluate(**given, verbose=0, return_dict=True)
        return {f"{prefix}{name}": float(value) for name, value in found.items()}


def zeros(rules: Sequence[Zeroing]) -> tuple[int, int | None]:
    """The nonzeros of the penalised weights, and their groups that are not zero."""
    whole = {id(rule.weight): rule for rule in rules}.values()
    nonzeros = sum(
        int(np.count_nonzero(ops.convert_to_numpy(rule.weight))) for rule in whole
    )
    groups = [
        part.nonzero_groups(rule.weight)
        for rule in whole
        for part in rule.penalty.parts()
        if isinstance(part, Grouped)
    ]
    return nonzeros, sum(groups) if groups else None
