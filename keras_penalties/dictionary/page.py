"""A report as one HTML file, with all pictures inside."""

from __future__ import annotations

import base64
import html as escaping
from collections.abc import Iterator

from keras_penalties.dictionary import figures, pictures
from keras_penalties.dictionary.result import DictionaryReport
from keras_penalties.tables import html_table

DEAD_ROWS = 200
"""At most so many dead units in the table."""

STYLE = """
body { margin: 0 auto; max-width: 1060px; padding: 1.2rem; color: #1f2933;
       font: 16px/1.45 system-ui, sans-serif; background: white; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0 .8rem; color: #52606d; max-width: 44rem; }
.figures { display: grid; gap: .6rem;
           grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.figures div { border-top: 3px solid #00796b; padding: .35rem 0; }
.figures b { display: block; font-size: 1.35rem; }
.figures span { color: #52606d; font-size: .9rem; }
.pictures { display: grid; gap: 1rem; align-items: start;
            grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.pictures img { width: 100%; max-width: 40rem; }
.units { display: grid; gap: 1rem;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.unit { border: 1px solid #d5dbe1; border-radius: 6px; padding: .7rem; }
.unit h3 { font-size: 1rem; margin: 0; }
.unit small { color: #52606d; display: block; margin-bottom: .5rem; }
.unit li small { display: inline; margin-left: .4rem; }
.look { display: grid; grid-template-columns: 2fr 3fr; gap: .6rem; }
.examples { display: grid; grid-template-columns: repeat(3, 1fr); gap: .3rem;
            align-content: start; }
.look img { width: 100%; image-rendering: pixelated; display: block;
            border: 1px solid #d5dbe1; box-sizing: border-box; }
.unit ol { margin: 0; padding-left: 1.4rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .2rem 1.2rem .2rem 0;
         border-bottom: 1px solid #d5dbe1; }
@media print { .unit { break-inside: avoid; } }
"""


def html(report: DictionaryReport) -> str:
    """The whole page."""
    title = escaping.escape(f"Dictionary of {report.title}")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *_figures(report),
            *_overview(report),
            *_units(report),
            *_dead(report),
            "</body></html>\n",
        ]
    )


def _figures(report: DictionaryReport) -> Iterator[str]:
    yield '<div class="figures">'
    for name, value in report.figures():
        words = escaping.escape(name)
        yield f"<div><b>{escaping.escape(value)}</b><span>{words}</span></div>"
    yield "</div>"


def _overview(report: DictionaryReport) -> Iterator[str]:
    yield '<h2>The units together</h2>\n<div class="pictures">'
    yield _image(pictures.densities(report), "Histogram of how often units are active")
    yield _image(pictures.neighbour_cosines(report), "Histogram of largest cosines")
    yield _image(pictures.cosine_matrix(report), "Cosines of the most active units")
    if report.images_shape:
        yield _image(pictures.directions(report), "Directions of the most active units")
    if report.known_cosines is not None:
        png = pictures.known_cosines(report, report.known_cosines)
        yield _image(png, "Histogram of the cosines of known directions")
    yield "</div>"


def _units(report: DictionaryReport) -> Iterator[str]:
    if not report.shown:
        return
    yield "<h2>Units, one by one</h2>"
    what = "its direction, and the rows" if report.images_shape else "the rows"
    yield f"<p>Of each unit: {what} with the largest activations.</p>"
    yield '<div class="units">'
    for unit in report.shown:
        density, mean, top, near = map(escaping.escape, report.line(unit))
        beside = f", nearest cosine {near}" if near else ""
        yield f'<div class="unit"><h3>Unit {unit}</h3>'
        words = f"active in {density} of rows, mean {mean}, largest {top}{beside}"
        yield f"<small>{words}</small>"
        yield from (
            _pictured(report, unit) if report.images_shape else _listed(report, unit)
        )
        yield "</div>"
    yield "</div>"


def _top(report: DictionaryReport, unit: int) -> Iterator[tuple[int, str, str]]:
    """The place, the escaped name and the activation of each top row."""
    for index, value in zip(
        report.top_rows[unit].tolist(), report.top_values[unit].tolist(), strict=True
    ):
        if index >= 0:
            name = report.names[index] if report.names else f"row {index}"
            yield index, escaping.escape(name), f"{value:.3g}"


def _pictured(report: DictionaryReport, unit: int) -> Iterator[str]:
    yield '<div class="look">'
    yield _small(pictures.direction_colors(report, unit), f"direction of unit {unit}")
    yield '<div class="examples">'
    for index, name, value in _top(report, unit):
        yield _small(pictures.example_colors(report, index), f"{name}: {value}")
    yield "</div></div>"


def _listed(report: DictionaryReport, unit: int) -> Iterator[str]:
    yield "<ol>"
    for _, name, value in _top(report, unit):
        yield f"<li>{name} <small>{value}</small></li>"
    yield "</ol>"


def _dead(report: DictionaryReport) -> Iterator[str]:
    dead = report.dead.tolist()
    if not dead:
        return
    yield f"<h2>Dead units: {len(dead):,} of {report.units:,}</h2>"
    yield "<p>They are active in no row of this data.</p>"
    rows = [
        (str(unit), f"{(report.dictionary[unit] ** 2).sum() ** 0.5:.3g}", near)
        for unit in dead[:DEAD_ROWS]
        for near in report.line(unit)[3:]
    ]
    yield html_table([("unit", "length of its direction", "nearest cosine"), *rows])
    if len(dead) > DEAD_ROWS:
        yield f"<p>And {len(dead) - DEAD_ROWS:,} more.</p>"


def _image(png: bytes, words: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{words}" src="data:image/png;base64,{data}">'


def _small(image: figures.Array, words: str) -> str:
    """An image that tells its words where the mouse is. They are escaped already."""
    found = _image(pictures.png_of(image), words)
    return found.replace("<img ", f'<img title="{words}" ', 1)
