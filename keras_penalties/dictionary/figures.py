"""Figures of a dictionary alone: the angles between its directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keras_penalties import checks

Array = npt.NDArray[Any]

BLOCK = 1024
"""How many rows are compared with all others at once."""


def mmcs(dictionary: Any, known: Any) -> float:
    """The mean max cosine similarity: how well known directions were found.

    `mean over j of max over i of cos(known_j, dictionary_i)`: 1 if each known direction
    is a row of the dictionary, whatever its length. It does not fall if the dictionary
    has more rows than that; and some agreement comes by chance, the more rows the more,
    so compare with the value of a random dictionary of the same size.

    Args:
        dictionary: The learned directions as rows, (units, features). A row of zeros
            has no direction and the cosine 0.
        known: The true directions as rows, (directions, features).

    Returns:
        A number in [−1, 1].

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> round(kp.mmcs(np.eye(3), [[0.0, 2.0, 0.0], [1.0, 1.0, 0.0]]), 6)
        0.853553

    Raises:
        ValueError: if one of them is no array of finite numbers of rank 2, has no rows,
            or they differ in the number of features.

    Source: Sharkey, Braun and Millidge, "Taking Features out of Superposition with
    Sparse Autoencoders", 2022.
    """
    return float(np.mean(largest_cosines(known, dictionary)))


def largest_cosines(known: Any, dictionary: Any) -> Array:
    """For each known direction the largest cosine with a row of the dictionary."""
    rows = unit_rows("dictionary", dictionary)
    wanted = unit_rows("known", known)
    if wanted.shape[1] != rows.shape[1]:
        expected = f"directions of {rows.shape[1]} features, as the dictionary has them"
        checks.refuse("known", expected, known)
    blocks = (wanted[i : i + BLOCK] @ rows.T for i in range(0, len(wanted), BLOCK))
    return np.concatenate([block.max(axis=1) for block in blocks])


def unit_rows(argument: str, directions: Any) -> Array:
    """The rows with length 1; a row of zeros stays so."""
    rows = checks.array(argument, directions, 2).astype("float64")
    if not rows.size:
        checks.refuse(argument, "at least one direction", directions)
    # First by the largest entry: the square of a huge or tiny one is not a number.
    largest = np.max(np.abs(rows), axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def neighbours(rows: Array) -> tuple[Array, Array]:
    """For each row of length 1 the row that is most similar, and their cosine.

    A dictionary of one row has no neighbour: the index −1 and the cosine 0.
    """
    if len(rows) < 2:
        return np.full(len(rows), -1), np.zeros(len(rows))
    nearest, cosines = [], []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK] @ rows.T
        own = np.arange(len(block))
        block[own, start + own] = -np.inf
        nearest.append(np.argmax(block, axis=1))
        cosines.append(block[own, nearest[-1]])
    return np.concatenate(nearest), np.concatenate(cosines)


def similar_in_a_row(cosines: Array) -> Array:
    """An order of the rows in which similar ones lie side by side.

    It starts from the first row, and goes on to the most similar row that is left.
    """
    order, left = [0], np.ones(len(cosines), bool)
    while left[order[-1]] and len(order) < len(cosines):
        left[order[-1]] = False
        order.append(int(np.argmax(np.where(left, cosines[order[-1]], -np.inf))))
    return np.asarray(order)
