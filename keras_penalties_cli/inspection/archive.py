"""A saved model's config and weights, opened within limits, from a file of any origin.

What a file says of its own sizes is checked before anything is read, and never trusted
while reading.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from keras_penalties_cli.inspection.weights import Place, legacy_configs

Json: TypeAlias = Any
"""Whatever a JSON text holds: the file's author chose the types."""

MiB = 2**20
MAX_CONFIG = 64 * MiB
"""The largest config.json that is read."""
MAX_VALUES = 2_000_000
"""How many values a config may have: each takes some hundred bytes of memory."""
MAX_OBJECTS = 300_000
"""How many of them may be objects: a layer has about fifteen."""
MAX_DEPTH = 100
"""How deep the brackets of a config may be nested."""
MAX_METADATA = MiB // 16
MAX_DIRECTORY = 2 * MiB
"""The largest list of members in an archive."""
MAX_PACKED = 256 * MiB
"""The largest weights file that is unpacked. Keras itself packs none."""

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # of an archive: an unknown version or packing
    OSError,
    OverflowError,
    RuntimeError,  # of an archive: a password
    ValueError,
)


class Refused(Exception):  # noqa: N818  (an answer, not a fault)
    """The file is no saved model, or one that is not read: the reason."""


@dataclass
class SavedModel:
    """What the file holds."""

    config: dict[str, Json]
    metadata: dict[str, Json] = field(default_factory=dict)
    weights: Place | None = None
    """Where the weights lie; None where they can't be read: see `unread`."""
    unread: list[str] = field(default_factory=list)
    """What could not be read, and why, a sentence each."""
    legacy: bool = False
    """Whether the file has the format of Keras 2, `.h5`."""


@contextmanager
def opened(path: Path) -> Iterator[SavedModel]:
    """The saved model at a path.

    Raises:
        Refused: with the reason, whatever is wrong with the file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            yield _opened(path, Path(scratch))
        except MemoryError:
            raise Refused("there is not enough memory to read the file") from None


def _opened(path: Path, scratch: Path) -> SavedModel:
    try:
        if path.is_dir():
            return _from_folder(path)
        if not path.is_file():  # a pipe or a device may never end
            found = "no regular file" if path.exists() else "no file of that name"
            raise Refused(f"there is {found}")
        with path.open("rb") as file:
            if file.read(len(_HDF5)) == _HDF5:
                return _from_legacy(path)
            return _from_archive(path, scratch)
    except _DAMAGE as error:
        raise Refused(f"the file can't be read: {error or type(error)}") from None


def _from_folder(path: Path) -> SavedModel:
    """A model saved with `zipped=False`."""

    def content(name: str, limit: int) -> bytes:
        with (path / name).open("rb") as file:
            return _bounded(file, name, limit)

    if not (path / CONFIG).is_file():
        raise Refused(f"it is a folder without a {CONFIG}")
    model = SavedModel(_config(content(CONFIG, MAX_CONFIG)))
    if (path / METADATA).is_file():
        model.metadata = _metadata(content(METADATA, MAX_METADATA))
    if (weights := path / WEIGHTS).is_file():
        model.weights = Place(weights, 0, weights.stat().st_size)
    else:
        model.unread.append(f"The strengths as they are: there is no {WEIGHTS}.")
    return model


def _from_legacy(path: Path) -> SavedModel:
    """A model in the HDF5 format of Keras 2, or weights alone."""
    texts = legacy_configs(Place(path, 0, path.stat().st_size), MAX_CONFIG)
    if texts is None:
        raise Refused("the HDF5 file is damaged, or is more than its limits allow")
    if "model_config" not in texts:
        raise Refused(
            "the file holds weights alone. What acts on them is in the model's "
            "`.keras` file: save the whole model, `model.save('model.keras')`"
        )
    model = SavedModel(_config(texts["model_config"].encode()), legacy=True)
    if "training_config" in texts:
        training = _json(texts["training_config"].encode(), "training_config")
        if isinstance(training, dict):
            optimizer = training.pop("optimizer_config", None)
            model.config["compile_config"] = {**training, "optimizer": optimizer}
    model.metadata = {"keras_version": texts.get("keras_version")}
    model.unread.append(
        "The strengths as they are: in an .h5 file of Keras 2 only those are read that "
        "the model was built with."
    )
    return model


class _Guarded(io.BufferedReader):
    """A file that gives no large piece at once, whatever `zipfile` asks for.

    `zipfile` reads the whole list of members at once, of the size that the file says.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MAX_DIRECTORY:
            raise Refused("the archive's list of members is too long")
        return super().read(size)


def _from_archive(path: Path, scratch: Path) -> SavedModel:
    with _Guarded(io.FileIO(path)) as file:
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise Refused(f"it is neither a .keras file nor HDF5: {error}") from None
        names = archive.namelist()
        if CONFIG not in names:
            raise Refused(f"it is an archive without a {CONFIG}, so no saved model")
        model = SavedModel(_config(_member(archive, CONFIG, MAX_CONFIG)))
        if METADATA in names:
            try:
                content = _member(archive, METADATA, MAX_METADATA)
                model.metadata = _metadata(content)
            except (*_DAMAGE, Refused) as error:
                model.unread.append(f"The version of Keras: {error}.")
        try:
            model.weights = _weights(archive, path, scratch)
        except (*_DAMAGE, Refused) as error:
            model.unread.append(f"The strengths as they are: {error}.")
        return model


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member's content."""
    info = _checked(archive, name, limit)
    with archive.open(info) as member:
        return _bounded(member, name, limit)  # type: ignore[arg-type]


def _checked(archive: zipfile.ZipFile, name: str, limit: int) -> zipfile.ZipInfo:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{name} is packed in a way that is not read")
    if info.file_size > limit:
        raise Refused(_too_large(name, limit))
    return info


def _bounded(file: BinaryIO, name: str, limit: int) -> bytes:
    """The whole content, piece by piece: it may be longer than it says."""
    content = bytearray()
    while piece := file.read(MiB):
        content += piece
        if len(content) > limit:
            raise Refused(_too_large(name, limit))
    return bytes(content)


def _too_large(name: str, limit: int) -> str:
    return f"{name} is larger than {limit // 1024:,} KiB"


def _weights(archive: zipfile.ZipFile, path: Path, scratch: Path) -> Place:
    """Where the weights lie: in the archive itself, unless they are packed."""
    if WEIGHTS not in archive.namelist():
        raise Refused(f"there is no {WEIGHTS}")
    info = archive.getinfo(WEIGHTS)
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
        return Place(path, _start(archive, path, info), info.file_size)
    info = _checked(archive, WEIGHTS, MAX_PACKED)
    unpacked, size = scratch / WEIGHTS, 0
    with archive.open(info) as member, unpacked.open("wb") as file:
        while piece := member.read(MiB):
            size += file.write(piece)
            if size > MAX_PACKED:
                raise Refused(_too_large(WEIGHTS, MAX_PACKED))
    return Place(unpacked, 0, size)


def _start(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's content starts in the file."""
    archive.open(info).close()  # checks the member's own header
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
        name, extra = struct.unpack("<HH", header[26:30])
        start = int(info.header_offset) + 30 + int(name) + int(extra)
        if start + info.file_size > file.seek(0, io.SEEK_END):
            raise Refused(f"{WEIGHTS} is cut off")
    return start


def _config(content: bytes) -> dict[str, Json]:
    found = _json(content, CONFIG)
    if not isinstance(found, dict) or not isinstance(found.get("class_name"), str):
        raise Refused(f"{CONFIG} describes no model of Keras 3")
    return found


def _metadata(content: bytes) -> dict[str, Json]:
    found = _json(content, METADATA)
    return found if isinstance(found, dict) else {}


def _json(content: bytes, name: str) -> Json:
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise Refused(f"{name} has more than {MAX_VALUES:,} values")
    if content.count(b"{") > MAX_OBJECTS:
        raise Refused(f"{name} has more than {MAX_OBJECTS:,} objects")
    try:
        found = json.loads(content.decode())
    except RecursionError:
        raise Refused(_too_deep(name)) from None
    except ValueError as error:
        raise Refused(f"{name} is not JSON: {error}") from None
    _check_depth(found, name)
    return found


def _too_deep(name: str) -> str:
    return f"{name} is nested deeper than {MAX_DEPTH} brackets"


def _check_depth(found: Json, name: str) -> None:
    """What is read later may then be walked by functions that call themselves."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            value
            for node in level
            for value in (node.values() if isinstance(node, dict) else node)
            if isinstance(value, dict | list)
        ]
        if not level:
            return
    raise Refused(_too_deep(name))
