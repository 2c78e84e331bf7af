"""Damaged and hostile model files: no code runs, nothing hangs, every error is clear.

Each file is loaded by `keras.saving.load_model` under safe mode, and read by
`keras-penalties inspect`, in a process that can be ended. Most are a good file with
something wrong: cut, bits flipped, values replaced. Many hold code in every way in
which a config can name some. The process watches what Python is asked to run or open.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import marshal
import multiprocessing
import os
import pickle
import random
import re
import sys
import tempfile
import time
import traceback
import zipfile
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import hostile_files
import keras
import numpy as np

import keras_penalties as kp
from campaign import part
from keras_penalties_cli import command

HANGS = 60.0
"""Seconds in which a file must be loaded and inspected: Keras takes some for a large
one. `inspect` alone has `INSPECT`."""
INSPECT = 5.0
"""Seconds of the processor for `inspect` and its own processes. Beyond, it hangs."""
SECRET = "secret.txt"
"""A file beside the models that none of them may read."""
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.")
"""What Python's audit calls are named that no model file may cause."""


# The files.


def good_models(folder: Path) -> list[Path]:
    """Small files with all hosts, several kinds of strength, and code of Keras' own."""
    x = keras.Input((3,))
    ramp = kp.penalties.L2(kp.strengths.LinearRamp(0.0, 1.0, 10))
    target = kp.penalties.L1(kp.Target(1.0)) + kp.penalties.MCP(0.2)
    dense = keras.layers.Dense(2, "sigmoid", name="enc", bias_regularizer="l2")
    layer = kp.layers.Penalized(dense, weights={"kernel": target}, outputs=ramp)
    hosted = keras.Model(x, kp.layers.ActivityPenalty("kl_sparsity(0.1)")(layer(x)))
    hosted.compile("adam", kp.losses.get("class_weighted('mse', weights={0: 1, 1: 2})"))
    flat = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    rules = {"d/kernel": "l1(0.1) + box()"}
    flat.compile(kp.optimizers.Proximal("sgd", rules), "half_sum_squared_error")
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    whole = kp.penalize(plain, {"kernel": "grouped(l1(0.1), axis=0)"})
    whole.compile(kp.optimizers.Penalizing("sgd", {"d/bias": "l2(0.1)"}), "mse")
    encoder = kp.models.SparseAutoencoder(hidden_units=2)
    encoder.build((None, 3))
    paths = []
    for n, model in enumerate([hosted, flat, whole, encoder]):
        paths.append(folder / f"good{n}.keras")
        model.save(paths[-1])
    return paths


class Pickled:
    """An object whose pickle writes the canary where it is read."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def _touch(x: Any) -> Any:
    """Write the canary, in the code of a `Lambda` layer."""
    __import__("os").system("touch canary")
    return x


def gadgets() -> list[Any]:
    """Parts of a config that name code, or a file, in every form Keras ever knew."""
    touch = "__import__('os').system('touch canary')"
    code = b64encode(marshal.dumps(_touch.__code__)).decode()
    lambda_ = {"code": code, "defaults": None, "closure": None}
    function = {"class_name": "__lambda__", "config": lambda_}
    pickled = b64encode(pickle.dumps(Pickled())).decode()

    def named(module: str | None, name: str, config: Any) -> dict[str, Any]:
        found = {"class_name": name, "config": config, "registered_name": None}
        return {"module": module, **found}

    return [
        *(touch, f"l1({touch})", f"l1(0.1) + {touch}", "{0.__class__}", "../canary"),
        function,
        {"class_name": "__numpy__", "config": {"value": touch, "dtype": "object"}},
        {"class_name": "__typespec__", "spec_name": "os", "spec_config": [touch]},
        named("os", "system", "touch canary"),
        named("os", "system", {"command": "touch canary"}),
        named("builtins", "function", "eval"),
        named("os", "function", "system"),
        named("subprocess", "Popen", {"args": ["touch", "canary"]}),
        named("builtins", "eval", {"source": touch}),
        named("keras.layers", "Lambda", {"function": function, "name": "f"}),
        named("keras.layers", "Lambda", {"function": touch, "name": "f"}),
        named("keras.src.utils.torch_utils", "TorchModuleWrapper", {"module": pickled}),
        named("keras.layers", "TorchModuleWrapper", {"module": {"config": pickled}}),
        named("keras.layers", "TFSMLayer", {"filepath": ".", "name": "f"}),
        named("keras.layers", "StringLookup", {"vocabulary": SECRET, "name": "f"}),
        named("keras.layers", "IntegerLookup", {"vocabulary": SECRET, "name": "f"}),
        named("keras.utils", "get_file", {"fname": "f", "origin": f"file:{SECRET}"}),
        named("keras.config", "enable_unsafe_deserialization", {}),
        named("keras.saving", "load_model", {"filepath": "x", "safe_mode": False}),
        named("keras_penalties.demo", "run", {"out": "canary"}),
        named("keras_penalties_cli.command", "main", {"argv": ["demo"]}),
        named("keras_penalties.files", "replacing", {"path": "canary"}),
        named("keras_penalties.callbacks", "TermLogger", {"path": "canary"}),
        named("keras_penalties", "keras_penalties>L1", {"strength": function}),
        {"class_name": "keras_penalties>Sum", "config": {"penalties": [function]}},
        {"class_name": "keras_penalties>Grouped", "config": {"penalty": touch}},
    ]


def with_code(folder: Path) -> list[Path]:
    """Files in which each form of code stands in the place of a layer."""
    inputs = {"batch_shape": [None, 3], "dtype": "float32", "name": "x"}
    first = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": inputs,
        "registered_name": None,
    }
    paths = []
    for n, gadget in enumerate(gadgets()):
        sequential = {"name": "net", "layers": [first, gadget]}
        config = {**first, "module": "keras", "class_name": "Sequential"}
        config["config"] = sequential
        paths.append(hostile_files.write(folder / f"code{n}.keras", config))
    return paths


def damaged(folder: Path, rng: random.Random) -> Iterator[Path]:
    """Files without end: first the crafted ones of `hostile_files`, each in turn."""
    models = good_models(folder)
    yield from models
    yield from hostile_files.make(folder, models[0])
    code, number = gadgets(), 0
    while True:
        number += 1
        path, whole = folder / f"file{number}.keras", rng.choice(models).read_bytes()
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
        kind = rng.random()
        if kind < 0.1:
            path.write_bytes(whole[: rng.randrange(len(whole))])
        elif kind < 0.2:
            bits = rng.choice([1, 5, 50])
            path.write_bytes(hostile_files.flipped(whole, bits, rng))
        elif kind < 0.3:
            inside = hostile_files.flipped(weights, rng.choice([1, 5, 50]), rng)
            hostile_files.write(path, config, inside)
        elif kind < 0.35:
            hostile_files.write(path, config)
            stream = io.BytesIO()
            np.savez(stream, a=np.array([Pickled()], object))
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("model.weights.npz", stream.getvalue())
        else:
            changed = copy.deepcopy(config)
            wrong = code if kind < 0.75 else hostile_files.WRONG
            for _ in range(rng.randint(1, 4)):
                hostile_files.swap(changed, rng, wrong)
            hostile_files.write(path, changed, weights)
        yield path


# The process that reads them.


def read(parent: Connection, folder: str) -> None:
    """Load and inspect each file that the parent names, and say what came of it."""
    os.chdir(folder)
    events: list[str] = []
    sys.addaudithook(lambda name, args: watch(name, args, events))
    while (path := parent.recv()) is not None:
        events.clear()
        loaded = _loaded(path)
        seen = events[:]  # `inspect` starts a process of its own
        parent.send((loaded, seen, _inspected(path)))


def watch(name: str, args: Any, events: list[str]) -> None:
    opens = name == "open" and str(args[0]).endswith((SECRET, "passwd"))
    if opens or name.startswith((*FORBIDDEN, "subprocess.")):
        events.append(f"{name} {args!r:.200}")


def _loaded(path: str) -> tuple[str, str]:
    """What `load_model` does with a file: the error's kind, and whose fault it is."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            keras.saving.load_model(path)
    except BaseException as error:
        return type(error).__name__, _our_fault(error)
    return "a model", ""


def _our_fault(error: BaseException) -> str:
    """The first error, if code of this package raised it and it is no ValueError."""
    chain: BaseException | None = error
    while chain is not None:
        error = chain
        if isinstance(error, ValueError) and _is_ours(error):
            return ""  # what lies below was turned into this one
        chain = error.__cause__ or error.__context__
    if _is_ours(error):
        return "".join(traceback.format_exception(error))[-1500:]
    return ""


def _is_ours(error: BaseException) -> bool:
    """Whether code of this package, and not of Keras, raised an error."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    names = [re.findall(r"/(keras_penalties|keras)/", file) for file in files]
    return [found[-1] for found in names if found][-1:] == ["keras_penalties"]


def _inspected(path: str) -> str:
    """What is wrong with what `inspect` says of a file; empty if nothing is."""
    out, err = io.StringIO(), io.StringIO()
    begun = sum(os.times()[:4])
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command.main(["inspect", path])
    except BaseException as error:
        return f"inspect raised {error!r}"
    said, seconds = out.getvalue() + err.getvalue(), sum(os.times()[:4]) - begun
    faults = {
        f"inspect ended with {status}": status not in (0, 1),
        "inspect does not name the file that it refuses": not out.getvalue()
        and path not in said,
        "inspect prints a traceback": "Traceback" in said,
        "inspect prints control characters": not said.replace("\n", "").isprintable(),
        f"inspect took {seconds:.1f} s": seconds > INSPECT,
    }
    return "; ".join(fault for fault, found in faults.items() if found)


class Reader:
    """A process that reads files, and is started again after it died or hung."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.here, there = context.Pipe()
        words = (there, str(self.folder))
        self.process = context.Process(target=read, args=words, daemon=True)
        self.process.start()
        there.close()

    def read(self, path: Path) -> tuple[tuple[str, str], list[str], str] | str:
        """What came of a file, or how the process ended."""
        try:
            self.here.send(str(path))
            if self.here.poll(HANGS):
                return self.here.recv()
            ended = f"hung for {HANGS:.0f} s"
        except (EOFError, OSError):
            ended = "died"
        self.process.kill()
        self.process.join()
        ended += f" (status {self.process.exitcode})"
        self._start()
        return ended

    def close(self) -> None:
        """End the process."""
        self.process.kill()


def run(count: int, seed: int) -> part.Figures:
    """Read `count` files."""
    rng, begun = random.Random(seed), time.time()
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        models, place = Path(scratch, "models"), Path(scratch, "place")
        models.mkdir()
        place.mkdir()
        (place / SECRET).write_text("secret")
        reader, files = Reader(place), damaged(models, rng)
        for _ in range(count):
            path = next(files)
            found = reader.read(path)
            if isinstance(found, str):
                kinds[found] += 1
                wrong.append(f"{path.name}: {found}")
            else:
                (kind, fault), events, inspected = found
                kinds[kind] += 1
                faults = [fault, *events, inspected]
                wrong += [f"{path.name}: {line}" for line in faults if line]
            if {file.name for file in place.iterdir()} != {SECRET}:
                wrong.append(f"{path.name}: files were written")
                _tidy(place)
            if path.name.startswith("file"):
                path.unlink()
        reader.close()
    return {
        "backend": keras.backend.backend(),
        "load_model gave": dict(kinds.most_common()),
        "wrong": wrong,
        "seconds": round(time.time() - begun),
    }


def _tidy(place: Path) -> None:
    for file in place.iterdir():
        if file.name != SECRET:
            file.unlink()


if __name__ == "__main__":
    from campaign import hostile  # under its own name, which other processes know

    sys.exit(part.main(hostile.run, __doc__))
