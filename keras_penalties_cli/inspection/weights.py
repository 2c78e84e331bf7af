"""Numbers from a weights file, read by a child process.

HDF5 is a large library in C, and a file that was made to harm it may end the process
that reads it. So a child reads, with limits of memory and time; if the child ends,
the numbers are missing in the answer, and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 20
"""How long the child may take."""
_READER = Path(__file__).with_name("h5_reader.py")


class Place(NamedTuple):
    """A part of a file."""

    path: Path
    start: int
    size: int


@dataclass(frozen=True)
class Stored:
    """The small weights that one layer or optimizer holds itself, by their place."""

    arrays: Mapping[int, float | list[float]]
    count: int = 0
    """How many weights there are, large ones too."""

    def number(self, place: int) -> float | None:
        """A single number, or None if there is none."""
        found = self.arrays.get(place)
        return found if isinstance(found, float | int) else None

    def vector(self, place: int) -> list[float] | None:
        """A vector, or None if there is none."""
        found = self.arrays.get(place)
        return found if isinstance(found, list) else None


def stored(place: Place, owners: Sequence[tuple[str, str]]) -> list[Stored] | None:
    """The small weights of each owner, by its path in the file and its name.

    An owner that the file does not have holds nothing. None where the child failed.
    """
    found = _asked(place, {"owners": list(owners)})
    if not isinstance(found, list) or len(found) != len(owners):
        return None
    return [
        Stored({int(n): x for n, x in arrays.items()}, count) for arrays, count in found
    ]


def legacy_configs(place: Place, limit: int) -> dict[str, str] | None:
    """The texts that an HDF5 file of Keras 2 has for attributes."""
    found = _asked(place, {"texts": limit})
    return found if isinstance(found, dict) else None


def _asked(place: Place, question: dict[str, Any]) -> Any:
    """The child's answer, or None."""
    request = {"path": str(place.path), "start": place.start, "size": place.size}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_READER)],
            input=json.dumps(request | question).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            check=True,
        )
        return json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return None
