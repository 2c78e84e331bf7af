"""Pictures of a dictionary, as PNG. They need matplotlib, which `demo` installs.

Each is drawn 5 inches wide with large letters, so that a slide and a telephone can show
it alike. No picture touches pyplot, whose state is the user's.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from keras_penalties.dictionary import figures
from keras_penalties.dictionary.figures import Array
from keras_penalties.dictionary.result import DictionaryReport

INK, LIVE, DEAD = "#1f2933", "#00796b", "#c2410c"
GAP = 0.8
"""The grey between the pictures of a grid, which white parts would else run into."""
MATRIX, GRID = 100, 100
"""At most so many units in the picture of cosines, and in that of directions."""


def require_matplotlib() -> None:
    """Raise an error that says what to install, before any work is done."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The pictures of a dictionary report need matplotlib: "
            "`pip install keras-penalties[demo]`. Without `path` the report has none."
        ) from error


def _axes(height: float, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11, colors=INK)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor="white")
    return buffer.getvalue()


def densities(report: DictionaryReport) -> bytes:
    """How many units are active how often, on a log scale, the dead ones beside."""
    figure, axes = _axes(3.2, "How often units are active")
    live, dead = report.density[report.density > 0], len(report.dead)
    low = np.log10(live.min()) if len(live) else 0.0
    edges = np.logspace(min(low, -2.0) - 1e-9, 0.0, 31)
    axes.hist(live, bins=edges, color=LIVE)
    axes.set_xscale("log")
    if dead:  # one bar, some steps to the left of the others
        left, right = edges[0] * (edges[0] / edges[1]) ** np.asarray([5, 2])
        axes.bar(left, dead, width=right - left, align="edge", color=DEAD)
        above = {"xytext": (0, 3), "textcoords": "offset points", "fontsize": 11}
        axes.annotate(f"{dead:,} dead", (left, dead), color=DEAD, **above)
        axes.margins(y=0.14)
    _label(axes, "share of rows in which the unit is active", "units")
    return _png(figure)


def neighbour_cosines(report: DictionaryReport) -> bytes:
    """How similar each unit's direction is to the most similar other one."""
    figure, axes = _axes(3.2, "Cosine with the most similar other unit")
    alive = report.density > 0
    shown = [report.neighbour_cosine[alive], report.neighbour_cosine[~alive]]
    edges = _edges(report.neighbour_cosine)
    axes.hist(shown, edges, stacked=True, color=[LIVE, DEAD], label=["live", "dead"])
    if not alive.all():
        axes.legend(frameon=False, fontsize=11)
    _label(axes, "largest cosine between decoder rows", "units")
    return _png(figure)


def known_cosines(report: DictionaryReport, known: Array) -> bytes:
    """How well each known direction was found."""
    figure, axes = _axes(3.2, f"Known directions found: MMCS {report.mmcs:.3f}")
    axes.hist(known, _edges(known), color=LIVE)
    _label(axes, "largest cosine with a unit", "known directions")
    return _png(figure)


def _edges(cosines: Array) -> Array:
    return np.linspace(min(0.0, float(cosines.min())), 1.0 + 1e-9, 31)


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.yaxis.get_major_locator().set_params(integer=True)


def cosine_matrix(report: DictionaryReport) -> bytes:
    """The cosines of the most active units' directions, similar units side by side."""
    most = most_active(report, MATRIX)
    rows = figures.unit_rows("dictionary", report.dictionary[most])
    order = figures.similar_in_a_row(rows @ rows.T)
    rows = rows[order]
    figure, axes = _axes(4.6, f"Cosines of the {len(most)} most active units")
    image = axes.imshow(rows @ rows.T, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xlabel("units, similar ones side by side", fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, shrink=0.8)
    bar.ax.tick_params(labelsize=11, colors=INK)
    bar.outline.set_visible(False)
    return _png(figure)


def most_active(report: DictionaryReport, number: int) -> Array:
    """At most so many units, those that are active most often first."""
    return np.argsort(-report.density, kind="stable")[:number]


def directions(report: DictionaryReport) -> bytes:
    """The directions of the most active units as images, each on its own scale."""
    most = most_active(report, GRID)
    across = int(np.ceil(np.sqrt(len(most))))
    down = -(-len(most) // across)
    height, width = (report.images_shape or (1, 1))[:2]
    gap = max(1, round(0.08 * max(height, width)))
    tall, wide = height + gap, width + gap
    grid = np.full((down * tall - gap, across * wide - gap, 3), GAP)
    for place, unit in enumerate(most):
        top, left = place // across * tall, place % across * wide
        grid[top : top + height, left : left + width] = direction_colors(report, unit)
    title = f"Directions of the {len(most)} most active units"
    figure, axes = _axes(0.35 + 5.0 * grid.shape[0] / grid.shape[1], title)
    axes.imshow(grid, interpolation="nearest")
    axes.set_axis_off()
    return _png(figure)


def direction_colors(report: DictionaryReport, unit: int) -> Array:
    """A direction as a picture (height, width, 3): 0 is white, or grey in colour."""
    from matplotlib import colormaps

    shape = report.images_shape or (1, 1)
    row = report.dictionary[unit]
    scaled = 0.5 + 0.5 * row / (np.abs(row).max() or 1.0)
    if len(shape) == 3 and shape[2] == 3:
        return scaled.reshape(shape)
    return np.asarray(colormaps["RdBu_r"](scaled.reshape(shape[:2])))[..., :3]


def example_colors(report: DictionaryReport, index: int) -> Array:
    """A row as a picture (height, width, 3), on one scale for all rows."""
    shape = report.images_shape or (1, 1)
    values = list(report.examples.values())
    low = min(float(v.min()) for v in values)
    high = max(float(v.max()) for v in values)
    row = (report.examples[index] - low) / ((high - low) or 1.0)
    image = row.reshape(*shape[:2], -1)
    return np.broadcast_to(image, (*shape[:2], 3))


def png_of(image: Array) -> bytes:
    """A picture (height, width, 3) with entries in [0, 1]."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.clip(image, 0.0, 1.0), format="png")
    return buffer.getvalue()
