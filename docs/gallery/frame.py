"""What each script of the gallery shares: its bars, its file of results, its picture.

A script has `experiment(quick)`, which returns a `Result`, and `draw(result, figure)`.
The results are a JSON file, from which `run.py` writes the pages.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_penalties.tables import text_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ("keras", "jax", "tensorflow", "torch", "numpy", "scikit-learn")
COLOURS = ("#3b528b", "#21918c", "#5ec962", "#e0a30c", "#c4452f", "0.55")
"""Of viridis, as in `keras_penalties.plots`, then two that stand out, and a grey."""
FONT = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class Bar:
    """A figure of ours, and what it is held against.

    Args:
        name: What the figure is.
        ours: The figure.
        relation: `"<="` or `">="`: how ours must stand to the bar.
        bar: The number that ours is held against.
        rival: Where that number comes from.
    """

    name: str
    ours: float
    relation: str
    bar: float
    rival: str

    @property
    def met(self) -> bool:
        """Whether ours meets the bar, without any tolerance."""
        ahead = (
            self.ours <= self.bar if self.relation == "<=" else self.ours >= self.bar
        )
        return bool(ahead)

    @property
    def verdict(self) -> str:
        """`met` or `not met`."""
        return "met" if self.met else "**not met**"

    @property
    def row(self) -> tuple[str, ...]:
        """The bar as a row of a table."""
        stands = f"{self.relation} {self.bar:.4g}"
        return self.name, f"{self.ours:.4g}", stands, self.rival, self.verdict


@dataclass
class Result:
    """What an experiment found.

    Args:
        bars: The figures that are held against something.
        head: The names of the table's columns.
        rows: The table, a row for each method.
        settings: What was set, and how it was chosen, for the reader.
        curves: What the picture is drawn from.
        about: The versions, the seconds and the date, which `main` adds.
    """

    bars: list[Bar]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    settings: Mapping[str, object]
    curves: Mapping[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def folders(quick: bool) -> tuple[Path, Path]:
    """Where results and pictures go: a quick run leaves the docs as they are."""
    if quick:
        return ROOT / "build" / "gallery", ROOT / "build" / "gallery"
    return HERE / "results", ROOT / "docs" / "images" / "gallery"


def main(
    name: str,
    experiment: Callable[[bool], Result],
    draw: Callable[[Result, Any], None],
) -> None:
    """Run a script of the gallery: `--quick` takes a part of the work, for a try.

    `--draw` draws the picture anew from the results that are there.
    """
    parser = argparse.ArgumentParser(description=name)
    parser.add_argument("--quick", action="store_true", help="a part, in seconds")
    parser.add_argument("--draw", action="store_true", help="only the picture")
    options = parser.parse_args()
    results, pictures = folders(options.quick)
    for folder in (results, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    file = results / f"{name}.json"
    if options.draw:
        result = load(file)
    else:
        start = time.perf_counter()
        result = experiment(options.quick)
        result.about.update(about(time.perf_counter() - start))
        file.write_text(json.dumps(asdict(result), default=plain) + "\n")
    _draw(result, draw, pictures / f"{name}.png")
    print(text_table([bar.row for bar in result.bars]))


def plain(x: Any) -> Any:
    """An array or a number of numpy as JSON has it."""
    if isinstance(x, np.ndarray | np.generic):
        return np.round(x, 4).tolist()
    raise TypeError(f"no JSON for {type(x)}")


def load(file: Path) -> Result:
    """A file of results."""
    found = json.loads(file.read_text())
    found["bars"] = [Bar(**bar) for bar in found["bars"]]
    return Result(**found)


def about(seconds: float) -> dict[str, Any]:
    """The machine, the versions and the time."""
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    import keras

    return {
        "backend": keras.backend.backend(),
        "seconds": round(seconds, 1),
        "processors": os.cpu_count(),
        "date": str(datetime.date.today()),
        "versions": versions,
    }


def _draw(result: Result, draw: Callable[[Result, Any], None], file: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(FONT):
        figure = plt.figure(figsize=(9, 4.5), layout="constrained")
        draw(result, figure)
        figure.savefig(file, dpi=130)
        plt.close(figure)


def spread(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    """`mean ± standard deviation`, of the seeds."""
    numbers = np.asarray(values, "float64")
    deviation = numbers.std(ddof=1) if numbers.size > 1 else 0.0
    return f"{numbers.mean():.{digits}f} ± {deviation:.{digits}f}"


def span(values: Sequence[float] | np.ndarray) -> str:
    """`least to most`, of whole numbers, or the one number that all are."""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
