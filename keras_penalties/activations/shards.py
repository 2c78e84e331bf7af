"""Rows on a disk: a folder of NumPy's own files, which any reader of arrays knows.

`.npy` rather than safetensors: numpy, which is there anyhow, reads it by `mmap_mode`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_penalties import checks


class Shards:
    """The rows in a folder that `write_shards` made.

    Args:
        folder: The folder.
        size: How many rows are read at once.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int) -> None:
        files = sorted(Path(folder).glob("*.npy"))
        kinds = [_kind(file) for file in files]
        if len({(width, dtype) for _, width, dtype in kinds}) != 1:
            checks.refuse(
                "folder",
                "a folder that `ActivationStream.save` made, with `.npy` files of rows "
                "of one width",
                str(folder),
            )
        _, self.features, self.dtype = kinds[0]
        self.size = size
        self.lengths = {file: kind[0] for file, kind in zip(files, kinds, strict=True)}

    def count(self) -> int:
        """The rows in all files."""
        return sum(self.lengths.values())

    def rows(
        self, rng: np.random.Generator, shuffled: bool
    ) -> Iterator[npt.NDArray[Any]]:
        """The rows, some neighbours at a time, from anywhere if they are shuffled."""
        parts = [
            (file, start)
            for file, length in self.lengths.items()
            for start in range(0, length, self.size)
        ]
        for i in rng.permutation(len(parts)) if shuffled else range(len(parts)):
            file, start = parts[i]
            # Opened each time: a process may hold some 1,000 open files, not more.
            array = np.load(file, mmap_mode="r")
            yield np.array(array[start : start + self.size])


def _kind(file: Path) -> tuple[int, int, str]:
    """How many rows a file has, of how many numbers, of which dtype."""
    array = np.load(file, mmap_mode="r")
    if array.ndim != 2:
        checks.refuse("folder", "`.npy` files with arrays of rank 2", str(file))
    return len(array), int(array.shape[1]), str(array.dtype)


def write_shards(
    folder: str | os.PathLike[str], rows: Iterable[npt.NDArray[Any]]
) -> None:
    """Write arrays of rows, a file each, so that the folder is there whole or not.

    Args:
        folder: A folder that does not exist. A neighbour, whose name ends with
            `.partial`, has the files until the last one is written.
        rows: The arrays.
    """
    whole = Path(folder)
    if whole.exists():
        checks.refuse("folder", "a folder that does not exist yet", str(folder))
    partial = whole.with_name(f"{whole.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    for number, array in enumerate(rows):
        np.save(partial / f"rows-{number:06}.npy", array)
    os.replace(partial, whole)
