"""A path on disk: each finished point in a file that is whole or not there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path as File
from typing import Any

import keras
import numpy as np

from keras_penalties import checks, compat
from keras_penalties.files import replacing
from keras_penalties.paths.result import Array, Point


class Folder:
    """Where a path is kept, so that a second call goes on where the first stopped.

    `path.json` says which path it is, `start.npz` has the weights and the optimizer's
    state of the first call, and `point_000.npz` and on have a finished point each.
    """

    def __init__(self, folder: Any) -> None:
        self.folder = File(folder)

    def resume(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What the first call wrote, or None if there was none.

        Raises:
            ValueError: if that call asked for another path.
        """
        if not (file := self.folder / "path.json").is_file():
            return None
        plan: dict[str, Any] = json.loads(file.read_text())
        for name, value in json.loads(json.dumps(asked)).items():
            if plan["asked"].get(name) != value:
                expected = (
                    f"a folder of the same path, or an empty one: the path in "
                    f"'{self.folder}' has another `{name}`"
                )
                if name != "model":
                    expected += f", {checks.shown(plan['asked'].get(name))}"
                checks.refuse("folder", expected, str(self.folder))
        return plan

    def begin(self, plan: dict[str, Any], start: Sequence[Array]) -> None:
        """Write what the path is, and from where it starts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"array_{i}": _plain(a) for i, a in enumerate(start)}
        with replacing(self.folder / "start.npz") as new:
            np.savez(new, **arrays)  # type: ignore[arg-type]
        with replacing(self.folder / "path.json") as new:
            new.write_text(json.dumps(plan, indent=1))

    def start(self) -> list[Array]:
        """The arrays from which the path starts."""
        with np.load(self.folder / "start.npz") as stored:
            return [stored[f"array_{i}"] for i in range(len(stored.files))]

    def points(self, names: Sequence[str]) -> list[Point]:
        """The finished points, their strengths by the names that the terms have now."""
        found: list[Point] = []
        while (file := self._file(len(found))).is_file():
            with np.load(file) as stored:
                fields = json.loads(str(stored["point"]))
            values = fields["strengths"].values()
            fields["strengths"] = dict(zip(names, values, strict=True))
            found.append(Point(**fields, file=file))
        return found

    def finish(self, point: Point) -> Point:
        """Write a point; its weights then lie in the file only."""
        fields = asdict(point)
        del fields["file"], fields["arrays"]
        arrays = {f"weight_{i}": _plain(a) for i, a in enumerate(point.arrays)}
        file = self._file(point.place)
        with replacing(file) as new:
            np.savez(new, point=np.array(json.dumps(fields)), **arrays)  # type: ignore[arg-type]
        return Point(**fields, file=file)

    def _file(self, place: int) -> File:
        return self.folder / f"point_{place:03}.npz"


def _plain(array: Array) -> Array:
    """An array that a file of numpy can hold: bfloat16 is none of numpy's own."""
    return array.astype("float32") if array.dtype.kind == "V" else array


def fingerprint(model: Any) -> str:
    """What a model is, and how it is compiled, whatever its layers are called.

    Keras numbers the names of layers, so that a model that is built again in the same
    process has others.
    """
    try:
        config = model.get_config()
    except NotImplementedError:  # a subclass with arguments that Keras can't describe
        config = type(model).__name__
    given = {n: v for n, v in compat.compile_arguments(model).items() if v is not None}
    serialize = keras.saving.serialize_keras_object
    text = json.dumps(
        [
            config,
            [(tuple(v.shape), str(v.dtype)) for v in model.variables],
            serialize(model.optimizer),
            {
                n: serialize(v)
                for n, v in given.items()
                if n in ("loss", "loss_weights")
            },
        ],
        default=lambda x: type(x).__name__,
    )
    return hashlib.sha256(_renumbered(text).encode()).hexdigest()


def _renumbered(text: str) -> str:
    """A config whose names of layers, and paths of weights, are numbered from 0 on."""
    seen: dict[str, dict[str, int]] = {}

    def numbered(match: re.Match[str]) -> str:
        names = seen.setdefault(match["stem"], {})
        return f"{match['stem']}#{names.setdefault(match[0], len(names))}"

    return re.sub(r'(?<=["/])(?P<stem>[A-Za-z_]\w*?)(_\d+)?(?=["/])', numbered, text)
