"""The stream: rows that are mixed in a buffer and come out in batches of one size."""

from __future__ import annotations

import itertools
import math
import os
import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from keras_penalties import checks
from keras_penalties.activations.shards import Shards, write_shards

Array: TypeAlias = npt.NDArray[Any]
Batch: TypeAlias = tuple[Array] | tuple[Array, Array]


class Source(Protocol):
    """Where rows come from, as often as they are asked for."""

    features: int
    dtype: str

    def count(self) -> int:
        """The rows of one pass."""

    def rows(self, rng: np.random.Generator, shuffled: bool) -> Iterator[Array]:
        """The rows of one pass, a handful at a time."""


class Statistics(NamedTuple):
    """What `ActivationStream.statistics` finds."""

    mean: Array
    """The mean row."""
    scale: float
    """The factor that makes the mean norm of the rows √features."""
    rows: int
    """How many rows were read."""


class ActivationStream(keras.utils.PyDataset):
    """Rows of a layer's outputs in batches of one size, in another order each epoch.

    `kp.activations` makes a stream from a model and `ActivationStream.load` one from a
    folder. `fit`, `evaluate` and `predict` take it on every backend, and a `for` loop
    reads one pass of it. In memory are the buffer and a few batches.

    A buffer is filled with rows. Each batch is drawn from it by chance, and the next
    rows take the free places. Each row comes once in a pass.

    Args:
        source: Where the rows come from.
        batch_size: As in `kp.activations`.
        buffer_size: As in `kp.activations`.
        seed: As in `kp.activations`.
        targets: As in `kp.activations`.
        drop_remainder: As in `kp.activations`.
        batches_per_epoch: As in `kp.activations`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> layer = model.layers[0]
        >>> stream = kp.activations(model, layer, np.ones((10, 3)), batch_size=4)
        >>> len(stream), [x.shape for x, target in stream]
        (2, [(4, 2), (4, 2)])
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 256,
        buffer_size: int = 16_384,
        seed: int | None = None,
        targets: bool = True,
        drop_remainder: bool = True,
        batches_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self.batch_size = checks.integer("batch_size", batch_size)
        self.buffer_size = checks.integer("buffer_size", buffer_size, low=0)
        if seed is None:  # `keras.utils.set_random_seed` makes it known
            seed = random.randrange(2**32)
        self.seed = checks.integer("seed", seed, low=0)
        self.targets = bool(targets)
        self.drop_remainder = bool(drop_remainder)
        if batches_per_epoch is not None:
            batches_per_epoch = checks.integer("batches_per_epoch", batches_per_epoch)
        self.batches_per_epoch = batches_per_epoch
        self._length: int | None = batches_per_epoch
        self._lock = threading.Lock()
        self._number = 0
        self._pass: Iterator[Array] | None = None

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], batch_size: int = 256, **options: Any
    ) -> Self:
        """The stream of the rows in a folder that `save` made.

        Args:
            folder: The folder.
            batch_size: Rows of a batch.
            **options: As in `kp.activations`: `buffer_size`, `seed`, `targets`,
                `drop_remainder` and `batches_per_epoch`.

        Raises:
            ValueError: if the folder has no `.npy` files of rows of one width.
        """
        return cls(Shards(folder, batch_size), batch_size, **options)

    def save(self, folder: str | os.PathLike[str]) -> ActivationStream:
        """Write the rows of one pass to a disk, and give the stream that reads them.

        The model runs once more and then no more. The rows lie in the order of the
        dataset, in files `rows-000000.npy` and on that `numpy.load` reads. If
        `batches_per_epoch` is given, they are those of one epoch, and some more to fill
        the last file. If the process is killed, there is no such folder.

        Args:
            folder: A folder that does not exist.

        Returns:
            A stream with the options of this one.

        Raises:
            ValueError: if the folder exists.
        """
        size = max(self.buffer_size // 4, self.batch_size)  # three such are in memory
        shards = self._drawn(0, shuffled=False, size=size)
        if self.batches_per_epoch is not None:  # there may be no end
            rows = self.batches_per_epoch * self.batch_size
            shards = itertools.islice(shards, math.ceil(rows / size))
        write_shards(folder, shards)
        return type(self).load(
            folder,
            self.batch_size,
            buffer_size=self.buffer_size,
            seed=self.seed,
            targets=self.targets,
            drop_remainder=self.drop_remainder,
            batches_per_epoch=self.batches_per_epoch,
        )

    @property
    def features(self) -> int:
        """The entries of a row."""
        return self._source.features

    def __len__(self) -> int:
        """The batches of an epoch. When first asked, they may need a counting pass."""
        if self._length is None:
            rows = self._source.count()
            whole = math.floor if self.drop_remainder else math.ceil
            length = whole(rows / self.batch_size)
            if not length:
                checks.refuse(
                    "batch_size", f"at most the rows of a pass, {rows}", self.batch_size
                )
            self._length = length
        return self._length

    def __getitem__(self, index: int) -> Batch:
        """The next batch, whichever number it has in an order that Keras made."""
        with self._lock:
            batch = None if self._pass is None else next(self._pass, None)
            if batch is None:
                self._pass = self._next_pass()
                batch = next(self._pass, None)
        if batch is None:
            checks.refuse("dataset", "enough rows for a batch", self._source)
        return self._as_batch(batch)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of a new pass."""
        with self._lock:
            batches = self._next_pass()
        return map(self._as_batch, itertools.islice(batches, self.batches_per_epoch))

    def on_epoch_begin(self) -> None:
        """Begin a new pass. If `batches_per_epoch` is given, the old one goes on."""
        if self.batches_per_epoch is None:
            with self._lock:
                self._pass = self._next_pass()

    def statistics(self, rows: int | None = None) -> Statistics:
        """The mean row, and the factor that makes the mean norm √features.

        `scale = √features / mean(‖row‖)`

        Dictionaries are trained on rows of one size, so that learning rates and
        strengths fit for every layer: on `scale * x`, or on `scale * (x - mean)`.

        Args:
            rows: Of how many rows at least, drawn by chance as for training. Default
                None: of a whole pass.

        Returns:
            A tuple `(mean, scale, rows)`.

        Raises:
            ValueError: if `rows` is less than 1, or all rows are zero.

        Source: the normalisation `expected_average_only_in` of SAELens; Templeton et
        al., "Scaling Monosemanticity", 2024.
        """
        wanted = math.inf if rows is None else checks.integer("rows", rows)
        batches = self._drawn(0, self.buffer_size > 0, self.batch_size)
        epoch = itertools.islice(batches, self.batches_per_epoch)
        return statistics_of(epoch, "dataset", self._source, wanted)

    def _as_batch(self, batch: Array) -> Batch:
        return (batch, batch) if self.targets else (batch,)

    def _next_pass(self) -> Iterator[Array]:
        self._number += 1
        batches = self._drawn(self._number, self.buffer_size > 0, self.batch_size)
        whole = self.batch_size if self.drop_remainder else 1
        return (batch for batch in batches if len(batch) >= whole)

    def _drawn(self, number: int, shuffled: bool, size: int) -> Iterator[Array]:
        """The rows of a pass in batches of some size, the last one perhaps smaller."""
        rng = np.random.default_rng([self.seed, number])
        limit = max(self.buffer_size if shuffled else 0, size)
        buffer = np.empty((limit + size, self.features), self._source.dtype)
        filled = 0
        for rows in _parts(self._source.rows(rng, shuffled), size):
            buffer[filled : filled + len(rows)] = rows
            filled += len(rows)
            if filled >= limit:
                yield _taken(buffer[:filled], size, rng if shuffled else None)
                filled -= size
        while filled:
            count = min(size, filled)
            yield _taken(buffer[:filled], count, rng if shuffled else None)
            filled -= count


def statistics_of(
    batches: Iterable[Array], argument: str, given: Any, wanted: float = math.inf
) -> Statistics:
    """What `ActivationStream.statistics` finds, of any batches of rows.

    Args:
        batches: The batches.
        argument: What an error calls them.
        given: What the user gave for that argument.
        wanted: Of how many rows at least.
    """
    total, norms, count = np.zeros(()), 0.0, 0
    for batch in batches:
        exact = batch.astype("float64")
        total = total + exact.sum(axis=0)
        norms += float(np.linalg.norm(exact, axis=1).sum())
        count += len(batch)
        if count >= wanted:
            break
    if not norms:
        checks.refuse(argument, "rows that are not all zero", given)
    scale = math.sqrt(total.size) * count / norms
    return Statistics((total / count).astype("float32"), scale, count)


def _parts(arrays: Iterable[Array], size: int) -> Iterator[Array]:
    """The arrays cut so that none has more than some rows."""
    for array in arrays:
        for start in range(0, len(array), size):
            yield array[start : start + size]


def _taken(rows: Array, count: int, rng: np.random.Generator | None) -> Array:
    """Some rows, drawn or the first ones; the others move to the front."""
    kept = len(rows) - count
    if rng is None:
        taken = rows[:count].copy()
        rows[:kept] = rows[count:]
        return taken
    drawn = rng.choice(len(rows), count, replace=False)
    taken = rows[drawn]
    last = np.setdiff1d(np.arange(kept, len(rows)), drawn, assume_unique=True)
    rows[drawn[drawn < kept]] = rows[last]
    return taken
