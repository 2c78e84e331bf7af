"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["replacing"]


@contextmanager
def replacing(path: Any) -> Iterator[Path]:
    """A new path to write to: that file takes the place of `path` at the block's end.

    Whoever reads `path` finds the old file or the whole new one: also after a full
    disk, an error, or a kill at any moment. The new file lies beside the old one, and
    its name ends as `path` does. An error removes the new file; a kill leaves it.

    Args:
        path: The file to replace or to make. A link stays, and its target is replaced.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with replacing(folder / "a.txt") as new:
        ...     _ = new.write_text("whole")
        >>> [(file.name, file.read_text()) for file in folder.iterdir()]
        [('a.txt', 'whole')]
    """
    path = Path(os.path.realpath(path))
    # Another process may write the same file now: each has a new file of its own.
    new = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield new
        with new.open("r+b") as file:
            os.fsync(file.fileno())  # else a crash could leave the name and no content
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
