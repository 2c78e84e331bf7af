"""Batches of model inputs from whatever Keras' `predict` takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_penalties import checks
from keras_penalties.datasets import (
    as_arrays,
    as_tensor,
    endless,
    one_epoch,
    samples_of,
)

WAYS = (
    "arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader`, "
    "another iterable of batches, or a function that makes a generator of batches"
)


class Inputs:
    """The inputs in a dataset, batch by batch, as often as they are asked for.

    Args:
        dataset: What the user gave.
        size: How many samples of arrays make a batch.
    """

    def __init__(self, dataset: Any, size: int) -> None:
        if isinstance(dataset, Iterator):
            checks.refuse(
                "dataset",
                f"{WAYS}. Each epoch reads the dataset anew, and an iterator can be "
                "read only once: give the function that makes the iterator",
                dataset,
            )
        self.arrays = as_arrays("dataset", dataset)
        if self.arrays is None and not (
            callable(dataset) or isinstance(dataset, Iterable | keras.utils.PyDataset)
        ):
            checks.refuse("dataset", WAYS, dataset)
        self.dataset, self.size = dataset, size

    @property
    def endless(self) -> bool:
        """Whether the dataset says that it has no end."""
        return endless(self.dataset)

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[Any]:
        """The inputs of each batch. With `rng`, the samples of arrays are shuffled."""
        if self.arrays is not None:
            yield from self._slices(rng)
            return
        for batch in self._given():
            x = keras.utils.unpack_x_y_sample_weight(batch)[0]
            yield keras.tree.map_structure(as_tensor, x)

    def _slices(self, rng: np.random.Generator | None) -> Iterator[Any]:
        count = samples_of(self.arrays)
        order = None if rng is None else rng.permutation(count)
        for start in range(0, count, self.size):
            part = slice(start, start + self.size)
            # In order, since an array that lies on a disk is read faster so.
            chosen = part if order is None else np.sort(order[part])
            yield keras.tree.map_structure(
                lambda a, chosen=chosen: as_tensor(a[chosen]), self.arrays
            )

    def _given(self) -> Iterable[Any]:
        data: Any = self.dataset
        if callable(data) and not isinstance(data, keras.utils.PyDataset):
            return data()
        return one_epoch(data)
