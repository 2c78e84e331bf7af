"""Every script of the gallery, and the pages of the docs on them.

    python docs/gallery/run.py [names] [--quick]

Each script has a process of its own, on `KERAS_BACKEND`. A bar that is not met is told
in the table and in the pages; only a script that fails makes the exit code 1. With
`--quick` each does a part of its work, into build/gallery/, and the pages stay as they
are. `--pages` only writes the pages, from the results that are there.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

from frame import HERE, ROOT, Result, folders, load

sys.path.append(str(ROOT / "benchmarks"))
from pages import table, write

from keras_penalties.tables import text_table

SCRIPTS = {
    "genes": "Which genes tell four tumours apart",
    "five_tasks": "Five tasks without forgetting",
    "two_units": "Two losses in two units",
    "vae": "A VAE that does not collapse",
    "pixels": "Fifty pixels of 784",
    "pruning": "Smaller at equal accuracy",
    "smaller_nets": "Fewer units at equal FLOPs",
}
"""The headline of each script, in the order of the pages."""
SHOWN = ("ours", "held", "schedules")
BARS = " | ".join(("", "ours", "bar", "from", ""))


def run(name: str, quick: bool) -> bool:
    """Run a script, and return whether it ended well."""
    print(f"\n== {name}: {SCRIPTS[name]}", flush=True)
    command = [sys.executable, str(HERE / f"{name}.py"), *["--quick"][: int(quick)]]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    return subprocess.run(command, env=environment).returncode == 0


def results(quick: bool = False) -> dict[str, Result]:
    """The results that are there."""
    files = {name: folders(quick)[0] / f"{name}.json" for name in SCRIPTS}
    return {name: load(file) for name, file in files.items() if file.exists()}


def write_pages() -> None:
    """Fill each page, and the index, from the results."""
    found = results()
    for name, result in found.items():
        page = f"gallery/{name}.md"
        write(page, "code", f"```py\n{source(HERE / f'{name}.py')}\n```")
        write(page, "results", results_text(name, result))
    write("gallery/index.md", "bars", index_text(found))


def source(script: Path) -> str:
    """The source of those functions of a script that a page shows."""
    text = script.read_text()
    nodes = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)]
    parts = [ast.get_source_segment(text, n) or "" for n in nodes if n.name in SHOWN]
    if not parts:
        raise ValueError(f"{script} has no function of {', '.join(SHOWN)}")
    return "\n\n\n".join(parts)


def results_text(name: str, result: Result) -> str:
    """A page's picture, bars, table and settings."""
    about, picture = result.about, f"![{SCRIPTS[name]}](../images/gallery/{name}.png)"
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    settings = "\n".join(f"- {k}: {v}" for k, v in result.settings.items())
    return "\n\n".join(
        [
            picture,
            table(BARS, (bar.row for bar in result.bars)),
            table(" | ".join(result.head), result.rows),
            settings,
            f"Run on {about['date']} on {about['backend']}, {about['processors']} "
            f"processors, in {about['seconds'] / 60:.1f} minutes, with {versions}.",
        ]
    )


def index_text(found: dict[str, Result]) -> str:
    """The pictures, two in a row, and every bar."""
    cells = [
        f"[![{SCRIPTS[name]}](../images/gallery/{name}.png)]({name}.md) "
        f"[{SCRIPTS[name]}]({name}.md)"
        for name in found
    ]
    cells += [""] * (len(cells) % 2)
    pictures = table(" | ", zip(cells[::2], cells[1::2], strict=True))
    bars = [(name, b) for name, result in found.items() for b in result.bars]
    met = sum(b.met for _, b in bars)
    rows = ([f"[{name}]({name}.md)", *b.row] for name, b in bars)
    return "\n\n".join(
        [pictures, f"{met} of {len(bars)} bars are met.", table(f" | {BARS}", rows)]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the gallery.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="a part of each")
    parser.add_argument("--pages", action="store_true", help="only write the pages")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SCRIPTS):
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    names = options.names or list(SCRIPTS)
    failed = []
    if not options.pages:
        failed = [name for name in names if not run(name, options.quick)]
    found = results(options.quick)
    shown = [b for name in names if name in found for b in found[name].bars]
    print(f"\n{sum(b.met for b in shown)} of {len(shown)} bars are met.\n")
    if shown:
        print(text_table([b.row for b in shown]))
    if not options.quick:
        write_pages()
    if failed:
        print(f"\nFailed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
