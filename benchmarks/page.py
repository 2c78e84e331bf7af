"""Writes the tables and the plot of the benchmarks into the docs."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from harness import Result, markdown
from pages import DOCS, result_table, table, write

PAGE = "benchmarks.md"
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
COLOURS = {"tensorflow": "tab:orange", "jax": "tab:blue", "torch": "tab:grey"}
PACKAGES = ("keras", "tensorflow", "jax", "torch", "optax", "sae-lens", "numpy")

Measured = Mapping[tuple[str, int], list[Result]]
Row = tuple[str, str, str]
"""What identifies a claim on every backend: the benchmark, ours, and the rival."""


def write_page(measured: Measured, minutes: float | None) -> None:
    """Fill the page and draw the plot."""
    draw(measured, DOCS / "images" / "benchmarks.png")
    picture = "![Each ratio over its bar](images/benchmarks.png)"
    draw_models(measured, DOCS / "images" / "models.png")
    write(PAGE, "machine", machine(minutes))
    write(PAGE, "models", models(measured))
    write(PAGE, "bars", f"{picture}\n\n{bars(measured)}")
    write(PAGE, "growth", growth(measured))
    write(PAGE, "details", details(measured))


def machine(minutes: float | None) -> str:
    """The machine and the packages with which the results were measured."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    took = "" if minutes is None else f" The run took {minutes:.0f} minutes."
    return (
        f"Measured on {datetime.date.today()} on {processor()}, "
        f"{os.cpu_count()} processors, {platform.system()}, with "
        f"{', '.join(versions)}. Load average when it ended: "
        f"{os.getloadavg()[1]:.1f}.{took}"
    )


def processor() -> str:
    """The processor's name, on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()


def by_row(measured: Measured) -> dict[Row, dict[tuple[str, int], Result]]:
    """The claims that have a bar, and each one's result per column."""
    rows: dict[Row, dict[tuple[str, int], Result]] = {}
    for column, results in measured.items():
        for r in results:
            if r.claim.bar is not None:
                row = r.bench, r.claim.ours, r.claim.rival
                rows.setdefault(row, {})[column] = r
    return rows


def column_name(column: tuple[str, int]) -> str:
    backend, threads = column
    return f"{NAMES[backend]}, {'1 processor' if threads else 'all'}"


def bars(measured: Measured) -> str:
    """Each claim with a bar: a row, with its ratio per backend and processors."""
    rows = by_row(measured)
    columns = [c for c in measured if any(c in found for found in rows.values())]
    every = [r for found in rows.values() for r in found.values()]
    met = sum(r.verdict == "met" for r in every)
    head = " | ".join(["", "ours", "against", "bar", *map(column_name, columns)])
    lines = []
    for (bench, ours, rival), found in rows.items():
        bar = " / ".join(dict.fromkeys(f"{r.claim.bar:.4g}" for r in found.values()))
        cells = [_cell(found.get(c)) for c in columns]
        lines.append([bench, ours, rival, bar, *cells])
    return f"{met} of {len(every)} are met.\n\n{table(head, lines)}"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    shown = f"{result.ratio:.3f}"
    return f"{shown} met" if result.verdict == "met" else f"**{shown} not met**"


MODELS = ("A step of ", "The first step of ", "load_model of ")
"""How the benchmarks of the models that people train are called."""


def models(measured: Measured) -> str:
    """Every result with a model that people train."""
    named = {
        column_name(c): [r for r in found if r.bench.startswith(MODELS)]
        for c, found in measured.items()
    }
    return result_table(named)


def growth(measured: Measured) -> str:
    """What a penalty adds to a step, for each parameter of ever larger layers."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for column, results in measured.items():
        for r in results:
            if found := re.fullmatch(r"A step with (1e\d) parameters", r.bench):
                each = 1e6 * (r.ours - r.theirs) / float(found[1])  # ns of ms
                row = cells.setdefault((column_name(column), r.claim.ours), {})
                row[found[1]] = f"{each:.2f}"
    sizes = sorted({size for row in cells.values() for size in row})
    head = " | ".join(["", "ns a parameter", *sizes])
    lines = ([*key, *(row.get(s, "") for s in sizes)] for key, row in cells.items())
    return table(head, lines)


def details(measured: Measured) -> str:
    """Every result, a table for each backend and benchmark."""
    parts = []
    for column, results in measured.items():
        parts.append(f"### {column_name(column)}")
        for bench in dict.fromkeys(r.bench for r in results):
            these = [r for r in results if r.bench == bench]
            parts.append(f"**{bench}**\n\n{markdown(these)}")
    return "\n\n".join(parts)


def draw(measured: Measured, path: Path) -> None:
    """Each claim with a bar: its ratio over its bar, so that all share one axis."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = by_row(measured)
    figure, axis = plt.subplots(
        figsize=(10, 1.5 + 0.27 * len(rows)), layout="constrained"
    )
    for place, found in enumerate(rows.values()):
        for i, (column, r) in enumerate(found.items()):
            _draw_result(axis, place + 0.17 * (i - (len(found) - 1) / 2), column, r)
    axis.axvline(1.0, color="black", linewidth=1)
    axis.set_xscale("log")
    low, high = 0.5, 2.0
    axis.set_xlim(low, high)
    ticks = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(rows)), _labels(list(rows)), fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    for place in range(1, len(rows)):
        axis.axhline(place - 0.5, color="0.9", linewidth=0.5)
    axis.set_xlabel(
        "ratio / bar: left of 1 is met. Lines are quartiles, arrows lie beyond"
    )
    for column in measured:
        if any(column in found for found in rows.values()):
            fill = {} if column[1] else {"markerfacecolor": "white"}
            axis.plot(
                [], [], "o", color=COLOURS[column[0]], label=column_name(column), **fill
            )
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_models(measured: Measured, path: Path) -> None:
    """What a step of the models that people train takes, over one without a penalty."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    columns = [c for c in measured if any(_model(r) for r in measured[c])]
    figure, axes = plt.subplots(
        1, max(1, len(columns)), figsize=(8, 3.6), sharey=True, layout="constrained"
    )
    for axis, column in zip(np.atleast_1d(axes), columns, strict=False):
        found: dict[str, dict[str, Result]] = {}
        for r in measured[column]:
            if (model := _model(r)) and r.claim.rival == "no penalty":
                found.setdefault(r.claim.ours, {})[model] = r
        for i, (way, results) in enumerate(found.items()):
            colour = "0.6" if way.startswith("Keras") else f"C{i}"
            x = np.arange(len(results)) + 0.2 * (i - (len(found) - 1) / 2)
            ratios = [r.ratio for r in results.values()]
            spread = [[abs(r.ratio - q) for r, q in _ends(results, e)] for e in (0, 1)]
            axis.bar(
                x, ratios, 0.19, yerr=spread, label=way, color=colour, ecolor="0.3"
            )
            axis.set_xticks(range(len(results)), [n.split(",")[0] for n in results])
        axis.axhline(1.0, color="black", linewidth=1)
        axis.set_title(column_name(column))
        axis.set_ylim(0.9, 1.3)
    if columns:
        np.atleast_1d(axes)[0].set_ylabel("a step / a step without a penalty")
        handles = np.atleast_1d(axes)[0].get_legend_handles_labels()
        figure.legend(*handles, frameon=False, loc="outside upper center", ncols=4)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _model(result: Result) -> str:
    """The model whose step was measured, or nothing."""
    return result.bench.removeprefix("A step of ") * result.bench.startswith(
        "A step of"
    )


def _ends(results: Mapping[str, Result], end: int) -> list[tuple[Result, float]]:
    return [(r, (r.low, r.high)[end]) for r in results.values()]


def _draw_result(axis, place: float, column: tuple[str, int], r: Result) -> None:
    """A dot with its quartiles; an arrow where it lies beyond the axis."""
    colour, bar = COLOURS[column[0]], r.claim.bar
    fill = {} if column[1] else {"markerfacecolor": "white"}
    x = r.ratio / bar
    if not 0.5 <= x <= 2.0:
        edge, marker = (0.51, "<") if x < 0.5 else (1.96, ">")
        axis.plot([edge], [place], marker, color=colour, markersize=4, **fill)
        return
    axis.plot([r.low / bar, r.high / bar], [place, place], color=colour, linewidth=1)
    axis.plot([x], [place], "o", color=colour, markersize=4, **fill)


def _labels(rows: list[Row]) -> list[str]:
    """Ours and the rival, after the benchmark's name where others compare the same."""
    pairs = [row[1:] for row in rows]
    names = [f"{ours} / {rival}" for ours, rival in pairs]
    return [
        f"{row[0]}: {name}" if pairs.count(row[1:]) > 1 else name
        for row, name in zip(rows, names, strict=True)
    ]
