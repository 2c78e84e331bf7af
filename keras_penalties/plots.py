"""Pictures of an objective. They need matplotlib, which the `demo` extra installs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_penalties import checks
from keras_penalties.registry import registered
from keras_penalties.terms import TermInfo, terms


def plot_terms(
    history: Any, ax: Any = None, validation: bool = False, model: Any = None
) -> Any:
    """Draw the loss over the epochs, stacked from the data loss and each term.

    Args:
        history: The `History` that `model.fit` returned, or its dict `history`. A dict
            alone does not tell which of its names are terms. Then those count that end
            in the name of a penalty or a layer of this package, such as
            `encoder_kernel_l2`, and the rest is not called data loss.
        ax: Matplotlib axes to draw on. Default: new ones.
        validation: Whether to draw the validation values instead. Default False.
        model: The model, which knows the names of all terms. Default: that of a
            `History`.

    Returns:
        The matplotlib axes.

    Raises:
        ValueError: if the history has no loss, or no validation loss if that is wanted.
        ImportError: if matplotlib is not installed.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.zeros((8, 2), "float32")
        >>> model = kp.models.SparseAutoencoder()
        >>> model.compile("adam", "half_sum_squared_error")
        >>> history = model.fit(x, x, epochs=3, verbose=0).history
        >>> axes = kp.plot_terms(history, model=model)
        >>> axes.get_ylabel()
        'loss'
    """
    plt = pyplot()
    prefix = "val_" if validation else ""
    values, epochs, model = _read(history, model)
    if f"{prefix}loss" not in values:
        checks.refuse("history", f"a history with '{prefix}loss'", sorted(values))
    names = [n for n in _names(values, model) if prefix + n in values]
    total = np.asarray(values[f"{prefix}loss"], "float64")
    parts = [np.asarray(values[prefix + name], "float64") for name in names]
    data = total - sum(parts)
    rest = "loss without these" if model is None else "data loss"
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    colors = plt.get_cmap("viridis")(np.linspace(0.15, 0.9, len(names) + 1))
    ax.stackplot(epochs, data, *parts, labels=[rest, *names], colors=colors)
    ax.plot(epochs, total, color="black", linewidth=1, label="loss")
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel(f"{prefix}loss")
    ax.set_xlim(epochs[0], max(epochs[-1], epochs[0] + 1))
    if (data > 0).all() and total.max() > 20 * total.min():
        ax.set_yscale("log")  # the loss falls by decades, and its end must stay visible
        ax.set_ylim(0.5 * data.min(), 1.2 * total.max())
    ax.legend(framealpha=0.9, edgecolor="none")  # on the bands it stays readable
    return ax


def pyplot() -> Any:
    """Matplotlib's `pyplot`, or an error that says what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "A picture needs matplotlib: `pip install 'keras-penalties[demo]'`."
        ) from error
    return plt


def _read(history: Any, model: Any) -> tuple[Mapping[str, Any], Any, Any]:
    """The values by name, the numbers of the epochs, and the model if it is known."""
    if isinstance(history, Mapping):
        epochs = range(max((len(column) for column in history.values()), default=0))
        return history, np.asarray(epochs) + 1, model
    if not hasattr(history, "history"):
        expected = "what `model.fit` returned, or its `history`"
        checks.refuse("history", expected, history)
    model = history.model if model is None else model
    return history.history, np.asarray(history.epoch) + 1, model


def _names(values: Mapping[str, Any], model: Any) -> Sequence[str]:
    """The names under which the terms in the loss are logged."""
    if model is not None:
        logged = [_logged(t) for t in terms(model) if t.in_loss]
        return list(dict.fromkeys(name for names in logged for name in names))
    words = [e.name for kind in ("penalty", "layer") for e in registered(kind)]
    ending = re.compile(rf"(?!val_).+_({'|'.join(map(re.escape, words))})(_\d+)?")
    return [name for name in values if ending.fullmatch(name)]


def _logged(term: TermInfo) -> Sequence[str]:
    """The entries of the term's host: one entry can show the sum of many terms."""
    names: Sequence[str] = (
        term.owner.logs.names if term.host == "layer" else [term.name]
    )
    return names
