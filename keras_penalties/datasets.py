"""Batches from whatever `fit` takes: arrays, or a dataset that may be read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_penalties import checks

Batch: TypeAlias = tuple[Any, Any, Any]
"""`(x, y, sample_weight)` as tensors, or as None where the data have none."""


def batches(x: Any, y: Any, sample_weight: Any, size: int) -> Iterator[Batch]:
    """One epoch of the data that `fit` takes, in their order.

    Args:
        x: Arrays, or a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch
            `DataLoader` or another iterable of batches, which bring `y` and the weights
            with them.
        y: The arrays of the targets; None where a dataset brings them.
        sample_weight: A weight for each sample; None where a dataset brings them.
        size: How many samples of arrays make a batch.

    Raises:
        ValueError: if `x` is none of these, or can't be read from start to end again.
    """
    arrays = as_arrays("x", (x, y, sample_weight))
    if arrays is not None:
        for start in range(0, samples_of(arrays[0]), size):
            part = slice(start, start + size)
            yield keras.tree.map_structure(
                lambda a, part=part: None if a is None else as_tensor(a[part]), arrays
            )
        return
    check_finite("x", x)
    for name, given in (("y", y), ("sample_weight", sample_weight)):
        if given is not None:
            checks.refuse(name, "None beside a dataset, which has its own", given)
    for batch in one_epoch(x):
        parts = keras.utils.unpack_x_y_sample_weight(batch)
        yield keras.tree.map_structure(
            lambda a: None if a is None else as_tensor(a), parts
        )


def check_finite(argument: str, dataset: Any) -> None:
    """Refuse what is no dataset, or none with an end that can be read more than once.

    Raises:
        ValueError: with what was expected.
    """
    again = isinstance(dataset, Iterable) and not isinstance(dataset, Iterator)
    if not (again or isinstance(dataset, keras.utils.PyDataset)) or endless(dataset):
        checks.refuse(
            argument,
            "arrays with as many samples each, or a dataset that has an end and can be "
            "read again: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch "
            "`DataLoader` or another iterable of batches that is no iterator",
            dataset,
        )


def endless(dataset: Any) -> bool:
    """Whether a dataset says that it has no end."""
    if isinstance(dataset, keras.utils.PyDataset):
        return dataset.num_batches is None
    cardinality = getattr(dataset, "cardinality", None)  # of tf.data
    return callable(cardinality) and int(cardinality()) == -1


def one_epoch(dataset: Any) -> Iterator[Any]:
    """The batches of a dataset as they are, from its start."""
    if not isinstance(dataset, keras.utils.PyDataset):
        yield from dataset
        return
    dataset.on_epoch_begin()
    count = dataset.num_batches
    for i in itertools.count() if count is None else range(count):
        yield dataset[i]
    dataset.on_epoch_end()


def as_arrays(argument: str, given: Any) -> Any:
    """A structure of arrays, of one length each, or None if something else is in it.

    Raises:
        ValueError: if the arrays differ in length.
    """
    if isinstance(given, keras.utils.PyDataset):
        return None
    leaves = [x for x in keras.tree.flatten(given) if x is not None]
    if not leaves or not all(len(getattr(x, "shape", ())) for x in leaves):
        return None
    if len({len(x) for x in leaves}) > 1:
        checks.refuse(argument, "arrays with as many samples each", given)
    return keras.tree.map_structure(
        lambda x: None if x is None else _array(x),
        given,
    )


def samples_of(x: Any) -> int:
    """How many samples a batch, or a structure of arrays, has."""
    return int(keras.tree.flatten(x)[0].shape[0])


def as_tensor(x: Any) -> Any:
    """A tensor of the backend, also from another backend's."""
    return ops.convert_to_tensor(x if ops.is_tensor(x) else np.asarray(x))


def _array(x: Any) -> npt.NDArray[Any]:
    return ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)
