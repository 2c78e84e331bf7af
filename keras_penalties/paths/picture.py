"""The picture of a path: the losses and the nonzeros over the strength."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_penalties.plots import pyplot

if TYPE_CHECKING:  # the result imports this file
    from keras_penalties.paths.result import Path


def draw(path: Path, ax: Any) -> Any:
    """Draw a path on matplotlib axes, or on new ones."""
    plt = pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    name = next(iter(path.points[0].strengths))
    strengths = [point.strengths[name] for point in path.points]
    if min(strengths) > 0:
        ax.set_xscale("log")
    ax.set_xlabel("strength" if path.common else f"strength of {name}")
    ax.set_ylabel("loss")
    losses = [name for name in ("loss", "val_loss") if name in path.points[0].values]
    colors = dict(zip(("loss", "val_loss"), ("tab:gray", "tab:blue"), strict=True))
    for loss in losses:
        values = [point.values[loss] for point in path.points]
        errors = [point.standard_error for point in path.points]
        known = loss == "val_loss" and None not in errors
        style = {"marker": "o", "markersize": 3, "linewidth": 1.2}
        ax.errorbar(
            strengths,
            values,
            yerr=np.asarray(errors, "float64") if known else None,
            color=colors[loss],
            elinewidth=0.6,
            capsize=2,
            label=f"{loss} ± 1 standard error" if known else loss,
            **style,
        )
    if "val_loss" in losses:
        _mark(path, ax, name)
    right = ax.twinx()
    counts = [point.nonzeros for point in path.points]
    right.plot(strengths, counts, "s:", color="tab:orange", markersize=4, linewidth=1)
    right.yaxis.get_major_locator().set_params(integer=True)
    right.set_ylabel("nonzeros", color="tab:orange")
    right.set_ylim(0, 1.05 * max(*counts, 1))
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def _mark(path: Path, ax: Any, name: str) -> None:
    """Lines at the two points that a user chooses between."""
    found = path.best("val_loss")
    ax.axvline(found.strengths[name], color="black", linewidth=0.8, label="best")
    if found.standard_error is not None:
        sparse = path.best("val_loss", one_standard_error=True)
        ax.axvline(
            sparse.strengths[name],
            color="black",
            linewidth=0.8,
            linestyle="--",
            label="within 1 standard error",
        )
