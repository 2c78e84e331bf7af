"""`dictionary_report`: what a sparse autoencoder has learned, after training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.dictionary import figures, page
from keras_penalties.dictionary.figures import Array
from keras_penalties.dictionary.pictures import require_matplotlib
from keras_penalties.dictionary.result import DictionaryReport
from keras_penalties.dictionary.stream import Tally, batches
from keras_penalties.files import replacing

__all__ = ["dictionary_report"]


def dictionary_report(
    model: Any,
    data: Any,
    path: str | os.PathLike[str] | None = None,
    known: Any = None,
    units: int | Sequence[int] = 20,
    examples: int = 9,
    images_shape: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    threshold: float = 0.0,
    batch_size: int = 256,
) -> DictionaryReport:
    """What a sparse autoencoder has learned: its units, its directions, its examples.

    The data goes through the model once, by batches. What is kept does not grow with
    the number of rows: figures, for each unit the places and values of its largest
    activations, and, where `images_shape` is given, the rows at these places.

    Args:
        model: Any object with `encode(x)`, which gives a code (batch, units), and with
            `dictionary`, the direction of each unit, (units, features): an autoencoder
            of `keras_penalties.models` or your own. With `decode(code)` too the report
            has the explained variance and the mean squared error.
        data: Rows, (rows, features), or an iterable of batches of rows that ends, such
            as a `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`.
            Of a batch `(x, y)` it takes x. Rows are counted in the order in which they
            come.
        path: Where to write the report as one HTML file that needs no network. Default
            None: nowhere. It needs matplotlib.
        known: The true directions, (directions, features), where they are known, for
            `mmcs`. Default None.
        units: How many units to show one by one, or which. A number of them is spread
            evenly over the live units, from those that are active most often to the
            rarest. Default 20.
        examples: How many rows with the largest activations to keep for each unit, 1 or
            more. Default 9.
        images_shape: (height, width), (height, width, 1) or (height, width, 3) if a row
            is an image: then directions and examples are shown as images. Default None.
        names: What to call the rows, one string for each, such as the words that they
            stand for. Default None: their places in the data.
        threshold: A unit is active where the size of its activation is above it.
            Default 0.0; the code of a sigmoid has no zeros and needs more.
        batch_size: How many rows of an array go through the model at once. Default 256.

    Returns:
        A `DictionaryReport`, which prints as a table.

    Raises:
        ValueError: if `model` has no `encode` or no `dictionary`, or gives codes of
            another shape; `data` has no rows, another width or a NaN; or another
            argument is none of these.
        ImportError: if `path` is given and matplotlib is not installed.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((100, 8)).astype("float32")
        >>> model = kp.models.TopKAutoencoder(16, k=3)
        >>> model.build((None, 8))  # or train it
        >>> report = kp.dictionary_report(model, x)
        >>> report.density.shape, report.top_rows.shape, round(report.l0)
        ((16,), (16, 9), 3)
    """
    if path is not None:
        require_matplotlib()
    examples = checks.integer("examples", examples)
    batch_size = checks.integer("batch_size", batch_size)
    threshold = checks.non_negative("threshold", threshold)
    dictionary = _dictionary_of(model)
    shape = _checked_shape(images_shape, dictionary.shape[1])
    rows = figures.unit_rows("model", dictionary)
    found = None if known is None else figures.largest_cosines(known, dictionary)
    picked = _checked_units(units, len(dictionary))
    tally = Tally(model, dictionary.shape, examples, threshold, shape is not None)
    for batch in batches(data, batch_size):
        tally.add(batch)
    if not tally.rows:
        checks.refuse("data", "at least one row", data)
    density = tally.active / tally.rows
    neighbour, cosine = figures.neighbours(rows)
    report = DictionaryReport(
        title=str(getattr(model, "name", type(model).__name__)),
        rows=tally.rows,
        density=density,
        mean_activation=tally.sums / tally.rows,
        l0=float(density.sum()),
        mse=tally.mse,
        explained_variance=tally.explained_variance,
        top_rows=tally.top.index,
        top_values=tally.top.value,
        neighbour=neighbour,
        neighbour_cosine=cosine,
        known_cosines=found,
        dictionary=dictionary,
        shown=picked if isinstance(picked, tuple) else _spread(density, picked),
        examples=tally.kept or {},
        images_shape=shape,
        names=_checked_names(names, tally.rows),
    )
    if path is not None:
        with replacing(path) as new:
            new.write_text(page.html(report), encoding="utf-8")
    return report


def _dictionary_of(model: Any) -> Array:
    if not hasattr(model, "encode") or not hasattr(model, "dictionary"):
        expected = "an object with `encode(x)` and `dictionary`, the directions as rows"
        checks.refuse(
            "model", f"{expected}, such as `kp.models.TopKAutoencoder`", model
        )
    given = model.dictionary
    found = np.asarray(ops.convert_to_numpy(ops.cast(given, "float32")))
    if found.ndim != 2 or not found.size or not np.all(np.isfinite(found)):
        expected = "a model with a finite `dictionary` of shape (units, features)"
        checks.refuse("model", expected, given)
    return found


def _checked_shape(shape: Any, features: int) -> tuple[int, ...] | None:
    if shape is None:
        return None
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    whole = all(isinstance(n, int | np.integer) and n > 0 for n in sizes)
    fits = whole and len(sizes) in (2, 3) and int(np.prod(sizes)) == features
    if not fits or (len(sizes) == 3 and sizes[2] not in (1, 3)):
        expected = "(height, width), (height, width, 1) or (height, width, 3)"
        checks.refuse("images_shape", f"{expected} of {features} features", shape)
    return tuple(int(n) for n in sizes)


def _checked_units(units: Any, number: int) -> int | tuple[int, ...]:
    if not isinstance(units, Sequence | np.ndarray) or isinstance(units, str):
        return checks.integer("units", units, 0)
    found = tuple(checks.integer("units", u, 0) for u in units)
    if any(u >= number for u in found):
        checks.refuse("units", f"numbers of units, 0 to {number - 1}", units)
    return found


def _checked_names(names: Any, rows: int) -> Sequence[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not hasattr(names, "__len__") or len(names) != rows:
        checks.refuse("names", f"one string for each of the {rows} rows", names)
    return [str(name) for name in names]


def _spread(density: Array, number: int) -> tuple[int, ...]:
    """Live units, evenly over their densities, the most active first."""
    order = np.argsort(-density, kind="stable")
    live = order[: np.count_nonzero(density)]
    picks = np.linspace(0, len(live) - 1, min(number, len(live))).round().astype(int)
    return tuple(live[picks].tolist())
