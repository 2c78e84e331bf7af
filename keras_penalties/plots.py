"""Pictures of an objective. They need matplotlib, which the `demo` extra installs."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_penalties import checks
from keras_penalties.terms import terms


def plot_terms(history: Any, ax: Any = None, validation: bool = False) -> Any:
    """Draw the loss over the epochs, stacked from the data loss and each term.

    Args:
        history: The `History` that `model.fit` returned.
        ax: Matplotlib axes to draw on. Default: new ones.
        validation: Whether to draw the validation values instead. Default False.

    Returns:
        The matplotlib axes.

    Raises:
        ValueError: if the history has no loss, or no validation loss if that is wanted.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.zeros((8, 2), "float32")
        >>> model = kp.models.SparseAutoencoder()
        >>> model.compile("adam", "half_sum_squared_error")
        >>> axes = kp.plot_terms(model.fit(x, x, epochs=3, verbose=0))
        >>> axes.get_ylabel()
        'loss'
    """
    import matplotlib.pyplot as plt

    prefix = "val_" if validation else ""
    values = history.history
    if f"{prefix}loss" not in values:
        checks.refuse("history", f"a history with '{prefix}loss'", sorted(values))
    names = [t.name for t in terms(history.model) if prefix + t.name in values]
    total = np.asarray(values[f"{prefix}loss"], "float64")
    parts = [np.asarray(values[prefix + name], "float64") for name in names]
    data = total - sum(parts)
    epochs = np.asarray(history.epoch) + 1
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    colors = plt.get_cmap("viridis")(np.linspace(0.15, 0.9, len(names) + 1))
    ax.stackplot(epochs, data, *parts, labels=["data loss", *names], colors=colors)
    ax.plot(epochs, total, color="black", linewidth=1, label="loss")
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel(f"{prefix}loss")
    ax.set_xlim(epochs[0], max(epochs[-1], epochs[0] + 1))
    if (data > 0).all() and total.max() > 20 * total.min():
        ax.set_yscale("log")  # the loss falls by decades, and its end must stay visible
        ax.set_ylim(0.5 * data.min(), 1.2 * total.max())
    ax.legend(frameon=False)
    return ax
