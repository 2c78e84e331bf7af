"""The command line that the parts of the campaign have in common."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""What a part counted. Under `"wrong"` it has a line for each fault that it found."""


def main(run: Callable[[int, int], Figures], description: str | None) -> int:
    """Run a part as the command line says, print its figures, and say if any is bad."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, required=True, help="how many are tried")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--report", type=Path, help="a JSON file for the figures")
    given = parser.parse_args()
    figures = {"count": given.count, "seed": given.seed, **run(given.count, given.seed)}
    text = json.dumps(figures, indent=2)
    if given.report:
        given.report.write_text(text)
    print(text)
    return 1 if figures["wrong"] else 0
