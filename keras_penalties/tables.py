"""Tables as text for a terminal, and as HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

Row = Sequence[str]


def text_table(rows: Sequence[Row]) -> str:
    """The rows as lines of text, their columns aligned.

    Example:
        >>> print(text_table([("term", "value"), ("l1", "0.5")]))
        term  value
        l1    0.5
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def html_table(rows: Sequence[Row]) -> str:
    """The rows as an HTML table, the first row its head.

    Example:
        >>> html_table([("a",), ("x < y",)]).splitlines()[2]
        '<tr><td>x &lt; y</td></tr>'
    """
    head, *body = rows
    lines = [_html_row(head, "th"), *(_html_row(row, "td") for row in body)]
    return "\n".join(["<table>", *lines, "</table>"])


def html_lines(lines: Iterable[str]) -> str:
    """Each line as a paragraph of HTML."""
    return "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _html_row(cells: Row, tag: str) -> str:
    inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inside}</tr>"
