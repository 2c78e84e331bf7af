"""Tables of results, and the place in a page of the docs where one stands.

    python benchmarks/pages.py dictionaries.md bench_saelens JAX.json TensorFlow.json

writes the results that `pytest --json` has left into that page, between the marks of
that name. The name of a file is the name of the backend in the table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness import Claim, Result, figure

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


def result_table(measured: Mapping[str, Iterable[Result]]) -> str:
    """A row for each result, by the name of the backend."""
    rows = []
    for backend, found in measured.items():
        for r in found:
            pair = f"{r.claim.ours} / {r.claim.rival}"
            figures = f"{figure(r.ours)} / {figure(r.theirs)} {r.unit}".strip()
            bar = "" if r.claim.bar is None else f"{r.claim.bar:.4g}"
            cells = [figures, f"{r.ratio:.3f}", bar, r.verdict]
            rows.append([backend, r.bench, pair, *cells])
    return table("backend | what | of whom | figures | ratio | bar | ", rows)


def read(path: Path) -> list[Result]:
    """The results that `pytest --json` has left in a file."""
    rows = json.loads(path.read_text())
    return [Result(**{**row, "claim": Claim(**row["claim"])}) for row in rows]


if __name__ == "__main__":
    page, name, *files = sys.argv[1:]
    write(page, name, result_table({Path(f).stem: read(Path(f)) for f in files}))
