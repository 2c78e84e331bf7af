"""The pictures of the demo's report. They need matplotlib, which `demo` installs.

No picture touches pyplot, whose state is the user's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_penalties.demo.outcome import Outcome
from keras_penalties.files import replacing
from keras_penalties.plots import plot_terms

WITHOUT, WITH = "#9aa5b1", "#00796b"
NAMES = ("without penalties", "with penalties")
DIGITS, PARTS = 12, 6


def draw(
    plain: Outcome, penalized: Outcome, digits: np.ndarray, out: Path
) -> dict[str, str]:
    """Write the pictures into `out`, and return a caption for each file name."""
    drawn = {
        "filters.png": (
            _filters(plain, penalized),
            "What each of the hidden units adds to the picture: red is ink, blue takes "
            "ink away. With the penalties the units are strokes.",
        ),
        "parts.png": (
            _parts(plain, penalized, digits),
            f"Three unseen digits, and the {PARTS} units that act most on each: "
            "activation times the length of the weights, as a share of all units' sum.",
        ),
        "activations.png": (
            _activations(plain, penalized),
            "With the penalties most activations are near 0, and each unit's mean "
            "activation is near 0.1.",
        ),
        "reconstructions.png": (
            _reconstructions(plain, penalized, digits),
            "The price: few active units rebuild an unseen digit less exactly.",
        ),
        "loss.png": (
            _loss(penalized),
            "The loss with the penalties. Left: its parts, one above the other. Right: "
            "each penalty by itself, so that the small ones are seen too.",
        ),
    }
    for name, (figure, _) in drawn.items():
        with replacing(out / name) as new:
            figure.savefig(new, dpi=150)
    return {name: caption for name, (_, caption) in drawn.items()}


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _halves(figure: Any) -> Any:
    """The left and the right half, with a gap between them."""
    return figure.subfigures(1, 3, width_ratios=(1, 0.04, 1))[::2]


def _show(axes: Any, image: np.ndarray) -> None:
    """A picture of ink from 0 to 1, dark on white."""
    axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0.0, vmax=1.0)
    _bare(axes)


def _show_filter(axes: Any, weights: np.ndarray, title: str = "") -> None:
    """What a unit adds, on a scale of its own: red is ink, blue takes ink away."""
    top = max(abs(weights).max(), 1e-12)
    axes.imshow(weights.reshape(8, 8), cmap="RdBu_r", vmin=-top, vmax=top)
    _bare(axes)
    axes.set_title(title, fontsize=9)


def _bare(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color="#d5dae0", linewidth=0.8)


def _filters(*both: Outcome) -> Any:
    figure = _figure(10.0, 5.3)
    for part, outcome, name in zip(_halves(figure), both, NAMES, strict=True):
        part.suptitle(name, fontsize=13)
        side = int(len(outcome.filters) ** 0.5)
        for axes, weights in zip(
            part.subplots(side, side).flat, outcome.filters, strict=True
        ):
            _show_filter(axes, weights)
    return figure


def _parts(plain: Outcome, penalized: Outcome, digits: np.ndarray) -> Any:
    shown = _spread(digits, DIGITS)[[1, 8, 10]]
    figure = _figure(10.0, 3.6)
    both = zip(_halves(figure), (plain, penalized), NAMES, strict=True)
    for part, outcome, name in both:
        part.suptitle(name, fontsize=13)
        for row, digit in zip(part.subplots(3, PARTS + 1), shown, strict=True):
            _show(row[0], digits[digit])
            change = outcome.code[digit] * np.linalg.norm(outcome.filters, axis=1)
            strongest = np.argsort(-change)[:PARTS]
            for axes, unit in zip(row[1:], strongest, strict=True):
                share = f"{change[unit] / change.sum():.0%}"
                _show_filter(axes, outcome.filters[unit], share)
    return figure


def _activations(*both: Outcome) -> Any:
    figure = _figure(10.0, 3.6)
    left, right = figure.subplots(1, 2)
    bins = np.linspace(0.0, 1.0, 41)
    for outcome, name, color in zip(both, NAMES, (WITHOUT, WITH), strict=True):
        look = {"color": color, "alpha": 0.8, "label": name, "bins": bins}
        left.hist(outcome.code.ravel(), **look)
        right.hist(outcome.code.mean(axis=0), **look)
    left.set(yscale="log", xlabel="activation", ylabel="count (log scale)")
    right.axvline(0.1, color="black", linestyle="--", linewidth=1, label="rate ρ = 0.1")
    right.set(xlabel="mean activation of a unit", ylabel="units")
    right.legend(frameon=False)
    return _open(figure)


def _reconstructions(*arguments: Any) -> Any:
    *both, digits = arguments
    shown = _spread(digits, DIGITS)
    figure = _figure(10.0, 2.7)
    rows = (digits, *(o.rebuilt for o in both))
    grid = figure.subplots(3, DIGITS)
    for row, images, name in zip(grid, rows, ("digit", *NAMES), strict=True):
        for axes, image in zip(row, images[shown], strict=True):
            _show(axes, image)
        row[0].set_ylabel(
            name.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=11
        )
    return figure


def _loss(outcome: Outcome) -> Any:
    figure = _figure(10.0, 4.0)
    left, right = figure.subplots(1, 2)
    plot_terms(outcome.history, ax=left)
    values = outcome.history.history
    epochs = np.asarray(outcome.history.epoch) + 1
    for band, name in zip(*left.get_legend_handles_labels(), strict=True):
        if name in values and name != "loss":
            look = {
                "color": band.get_facecolor()[0],
                "label": name,
                "linewidth": 2.5,
                "marker": ".",
            }
            right.plot(epochs, values[name], **look)
    right.set(yscale="log", xlabel="epoch", ylabel="each penalty (log scale)")
    right.legend(frameon=False)
    return _open(figure)


def _open(figure: Any) -> Any:
    """Without the frames' upper and right lines."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _spread(digits: np.ndarray, count: int) -> np.ndarray:
    """The places of `count` digits, evenly spread."""
    return np.linspace(0, len(digits) - 1, count).astype(int)
