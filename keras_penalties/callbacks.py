"""Terms seen step by step. Values by epoch need no callback: the logs have them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import keras

from keras_penalties import checks, compat
from keras_penalties.explain.measure import as_batch, gradient_norms
from keras_penalties.files import replacing
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.terms import terms

__all__ = ["LogTerms", "TermLogger", "gradient_shares"]


def __dir__() -> list[str]:
    return sorted(__all__)


class LogTerms(keras.callbacks.Callback):
    """Puts into the logs of `fit` the terms that nobody else logs.

    These are the terms of `Penalizing` and `Proximal`, and those of weights' Keras
    slots: `<term>` is strength × penalty of the weight as it is after the epoch, and
    `<term>_strength` a strength that moves. With an optimizer's terms `loss` is the
    data's alone, so that the objective is the sum of `loss` and these. For values at
    each step there is `TermLogger`.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> line = keras.layers.Dense(1, name="line")
        >>> model = keras.Sequential([line], name="net")
        >>> optimizer = kp.optimizers.Penalizing("sgd", {"kernel": "l2(0.5)"})
        >>> model.compile(optimizer, "mse")
        >>> x = np.ones((4, 1))
        >>> history = model.fit(x, x, verbose=0, callbacks=[kp.callbacks.LogTerms()])
        >>> sorted(history.history)
        ['line_kernel_l2', 'loss']
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the terms to the logs, which later callbacks see."""
        for info in terms(self.model):
            if info.host == "layer" or logs is None:
                continue
            if (value := info.present()) is not None:
                logs[info.name] = value
                if info.term is not None and info.term.strength.logged:
                    logs[f"{info.name}_strength"] = info.evaluated


class TermLogger(keras.callbacks.Callback):
    """Keeps each term's value and strength at each step, and its share of the gradient.

    The logs that Keras shows are means over the epoch so far; `rows` has a dict for
    each step, or for each `steps_per_execution` of them their mean: `epoch`, `batch`,
    and for each term that acts `<term>` and `<term>_strength`. A layer's term is the
    value that was in the step's loss. Nobody logs those of optimizers and of weights'
    Keras slots, so they are computed here, eagerly, from the weights after the step, as
    all strengths are; the terms of Keras' activity slots can't be computed. On JAX this
    brings the weights back to Python after each step, which takes time.

    A share is `‖∇term‖ / (‖∇rest‖ + Σ‖∇term‖)` over all trained weights, where the rest
    is the data loss and all other parts of the objective. It is taken after each epoch
    on a batch that is given, with an eager pass for each term. The epoch's last row has
    it, as `<term>_gradient_share` and `rest_gradient_share`.

    Args:
        path: A CSV file for the rows, rewritten after each epoch. A reader finds the
            file of one epoch or of the next, also after a kill or on a full disk, and
            never one that is half written. Default None.
        resume: Whether to keep from an earlier run's file the rows of the epochs
            before the first that is trained now: what a training needs that goes on
            after a kill. Default False: the file is written anew.
        gradients: The batch `(x, y)` on which to compute the gradients. Default None:
            no gradients.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.full((8, 2), 0.5, "float32")
        >>> model = kp.models.SparseAutoencoder(sparsity=0.0, weight_decay=0.1)
        >>> model.compile("adam", "half_sum_squared_error")
        >>> logger = kp.callbacks.TermLogger(gradients=(x, x))
        >>> _ = model.fit(x, x, batch_size=4, epochs=3, verbose=0, callbacks=[logger])
        >>> len(logger.rows), [name for name in logger.rows[-1] if "encoder" in name]
        (6, ['encoder_kernel_l2', 'encoder_kernel_l2_strength',
        'encoder_kernel_l2_gradient_share'])
    """

    def __init__(
        self, path: Any = None, gradients: Any = None, resume: bool = False
    ) -> None:
        super().__init__()
        if resume and path is None:
            checks.refuse("path", "the file to go on with, as resume=True", path)
        self.path = None if path is None else Path(path)
        self.gradients = gradients
        self._resume = resume
        self.rows: list[dict[str, float]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras sets the layers' sums to zero."""
        if self._resume and self.path is not None and self.path.exists():
            self.rows = [r for r in _read(self.path) if r["epoch"] < epoch] + self.rows
        self._resume = False
        self._epoch = epoch
        self._before: dict[Any, float] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Add a row."""
        row: dict[str, float] = {"epoch": self._epoch, "batch": batch}
        model = self.model  # on JAX this is what brings the weights back
        for layer in _hosts(model):
            totals, size = layer.logs.totals()
            since = size - self._before.get(layer, 0.0)
            self._before[layer] = size
            for term, total in totals.items():
                if layer.acts(term):
                    row[term.name] = (total - self._before.get(term, 0.0)) / since
                self._before[term] = total
        for info in filter(lambda info: info.acts, terms(model)):
            # A layer's value was in the step's loss, and is in the row already.
            if info.host != "layer" and (value := info.present()) is not None:
                row[info.name] = value
            if info.strength is not None:
                row[f"{info.name}_strength"] = info.strength
        self.rows.append(row)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Take the gradients, and write the file."""
        if self.gradients is not None:
            shares = gradient_shares(self.model, *self.gradients)
            named = {f"{name}_gradient_share": s for name, s in shares.items()}
            self.rows[-1].update(named)
        if self.path is not None:
            self._write(self.path)

    def _write(self, path: Path) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(path) as new, new.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)


def _read(path: Path) -> list[dict[str, float]]:
    """The rows of a file that a `TermLogger` wrote: a term that is absent is empty."""
    with path.open(newline="") as file:
        found = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    try:
        counts = [{k: int(row[k]) for k in ("epoch", "batch")} for row in found]
        return [
            {k: float(v) for k, v in row.items()} | count
            for row, count in zip(found, counts, strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        checks.refuse("path", "a CSV file that a TermLogger wrote, or no file", path)


def _hosts(model: Any) -> list[PenaltyLayer]:
    return [x for x in compat.flat_layers(model) if isinstance(x, PenaltyLayer)]


def gradient_shares(model: keras.Model, x: Any, y: Any) -> dict[str, float]:
    """Each term's share of the gradient's norm on a batch: `‖∇term‖ / Σ‖∇‖`.

    Args:
        model: A compiled model that has been built.
        x: The inputs of the batch.
        y: Its targets.

    Returns:
        The shares by the terms' names, of those in Keras' slots too, and under `"rest"`
        that of the data loss and of what else is in the loss. They sum to 1.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.full((8, 2), 0.5, "float32")
        >>> model = kp.models.SparseAutoencoder()
        >>> model.compile("adam", "half_sum_squared_error")
        >>> _ = model.train_on_batch(x, x)
        >>> round(sum(gradient_shares(model, x, x).values()), 5)
        1.0
    """
    found = terms(model)
    norms = gradient_norms(model, found, as_batch(model, (x, y)))
    shares = {found[i].name: norms.share(norm) for i, norm in norms.terms.items()}
    return {"rest": norms.share(norms.rest), **shares}
