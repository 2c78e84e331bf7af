"""The child process that reads a weights file: JSON in, JSON out.

It is a script, not a module, and imports nothing of this package. It follows no link
out of the file and reads small arrays only, none of which it has to unpack.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import h5py

MEMORY = 2**29
"""How many bytes more than at the start."""
SECONDS = 10
MAX_GROUPS = 100_000
MAX_DEPTH = 64
MAX_ENTRIES = 4096
"""The longest vector that is read."""
MAX_NAME = 1000


def limit_resources() -> None:
    """Bound what reading may cost, where the system lets a process do so."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with open("/proc/self/statm") as sizes:
            now = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


class Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._start, self._size, self._at = start, size, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}
        self._at = max(base[whence] + offset, 0)
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read from the place on; zeros beyond the end, where HDF5 may ask for them."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        data = self._file.read(max(min(len(view), self._size - self._at), 0))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True


def is_group(group: Any, name: str) -> bool:
    """Whether a group lies there, in the file itself."""
    link = group.get(name, getclass=True, getlink=True)
    return link is h5py.HardLink and group.get(name, getclass=True) is h5py.Group


def groups(root: Any) -> Iterator[tuple[str, Any]]:
    """Every group with its path, each once."""
    seen: set[int] = set()
    stack = [("", root, 0)]
    while stack and len(seen) < MAX_GROUPS:
        path, group, depth = stack.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or depth > MAX_DEPTH:
            continue
        seen.add(address)
        yield path, group
        for count, name in enumerate(group):
            if count >= MAX_GROUPS:
                break
            with suppress(Exception):  # a damaged one does not hide the others
                if name != "vars" and is_group(group, name):
                    inner = f"{path}/{name}" if path else name
                    stack.append((inner, group[name], depth + 1))


def owners(file: Any) -> Iterator[tuple[str, str, Any]]:
    """Path, name and group of each object that has weights."""
    for path, group in groups(file):
        with suppress(Exception):
            if is_group(group, "vars"):
                found = group["vars"]
                yield path, text(found, "name", MAX_NAME) or "", found


def text(obj: Any, name: str, limit: int) -> str | None:
    """An attribute that is one text."""
    if name not in obj.attrs:
        return None
    attribute = obj.attrs.get_id(name)
    if attribute.shape != () or attribute.get_storage_size() > limit:
        return None
    found = obj.attrs[name]
    found = found.decode(errors="replace") if isinstance(found, bytes) else found
    return found[:limit] if isinstance(found, str) else None


def small(group: Any, name: str) -> Any:
    """A number or a short vector that lies in the file itself, or None."""
    if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
        return None
    if group.get(name, getclass=True) is not h5py.Dataset:
        return None
    dataset = group[name]
    if dataset.dtype.kind not in "iuf":
        return None
    if len(dataset.shape or ()) > 1 or (dataset.size or 0) > MAX_ENTRIES:
        return None
    made = dataset.id.get_create_plist()
    if dataset.is_virtual or made.get_external_count() or made.get_nfilters():
        return None
    if made.get_layout() == h5py.h5d.CHUNKED and dataset.chunks[0] > MAX_ENTRIES:
        return None
    return dataset[()].astype("float64").tolist()


def arrays(group: Any) -> dict[str, Any]:
    """The small arrays of a group that have numbers for names."""
    found = {}
    for count, name in enumerate(group):
        if count >= MAX_GROUPS:
            break
        if name.isdecimal() and len(name) < 7:
            with suppress(Exception):
                if (value := small(group, name)) is not None:
                    found[name] = value
    return found


def answer(question: dict[str, Any]) -> Any:
    """What the parent process asked for."""
    part = Part(question["path"], question["start"], question["size"])
    with h5py.File(part, "r") as file:
        if "texts" in question:
            names = ("model_config", "training_config", "keras_version")
            texts = {name: text(file, name, question["texts"]) for name in names}
            return {name: x for name, x in texts.items() if x is not None}
        by_path: dict[str, tuple[str, Any]] = {}
        by_name: dict[str, list[Any]] = {}
        for path, name, group in owners(file):
            by_path[path] = name, group
            by_name.setdefault(name, []).append(group)
        found = []
        for path, wanted in question["owners"]:
            name, group = by_path.get(path, ("", None))
            if group is None or name not in ("", wanted):
                same = by_name.get(wanted, [])
                group = same[0] if len(same) == 1 else None
            empty = group is None
            found.append(({}, 0) if empty else (arrays(group), len(group)))
        return found


if __name__ == "__main__":
    limit_resources()
    # NaN and Infinity are no JSON, but Python's own reader takes them.
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
