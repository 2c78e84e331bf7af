"""Tables of results, and the place in a page of the docs where one stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def table(head: str, rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; `head` has its columns between bars."""
    line = "| " + " | ".join(["---"] * (head.count("|") + 1)) + " |"
    cells = (f"| {' | '.join(map(str, row))} |" for row in rows)
    return "\n".join([f"| {head} |", line, *cells])


def write(page: str, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- end of name -->` in a page."""
    path = DOCS / page
    marks = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
    new, count = re.subn(
        marks, lambda m: f"{m[1]}\n{text}\n{m[2]}", path.read_text(), flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{path} has the marks of '{name}' {count} times, not once")
    path.write_text(new)
