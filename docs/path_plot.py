"""Draw the picture of docs/path.md from the page's own code: run this file."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent


def main() -> None:
    import matplotlib

    matplotlib.use("agg")
    page = (DOCS / "path.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(block, names)
    figure = names["axes"].figure
    figure.savefig(DOCS / "images" / "path.png", dpi=120)


if __name__ == "__main__":
    main()
