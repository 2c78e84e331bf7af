"""Two hundred damaged or hostile model files, the same ones in every run."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

WRONG = [
    *(None, True, 0, -1, 1e308, 10**400, float("nan"), float("-inf")),
    *("", "x" * 5000, "\ud800", "\x1b[2J\x1b]0;owned\x07", "Ω\u202e", "keras>L1"),
    *([], {}, [[]], [None], {"": None}, {"class_name": "Sum"}, {"class_name": 3}),
    {"class_name": "keras_penalties>Sum", "config": {"penalties": [{}, 1, None]}},
    {"class_name": "__lambda__", "config": {"code": "4wEAAAA"}},
    [[[[[[[[1.0] * 3] * 3] * 3] * 3] * 3]]],
]


def write(
    path: Path,
    config: bytes | str | dict[str, Any],
    weights: bytes | None = None,
    packed: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive as Keras writes it, but of any content."""
    text = json.dumps(config) if isinstance(config, dict) else config
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", text)
        if weights is not None:
            archive.writestr("model.weights.h5", weights)
    return path


def make(folder: Path, good: Path) -> Iterator[Path]:
    """The files, from a good one."""
    rng, whole = random.Random(17), good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    for n in range(40):
        yield _put(folder / f"cut{n}.keras", whole[: len(whole) * n // 40])
    for n in range(30):
        yield _put(folder / f"flipped{n}.keras", flipped(whole, 1 + n % 3 * 20, rng))
    for n in range(30):  # the archive itself is whole
        inside = flipped(weights, 1 + n * 4, rng)
        yield write(folder / f"weights{n}.keras", config, inside)
    for n in range(60):
        changed = copy.deepcopy(config)
        for _ in range(1 + n % 6):
            swap(changed, rng)
        yield write(folder / f"swapped{n}.keras", changed, weights)
    for name, content in crafted(config).items():
        yield write(folder / f"{name}.keras", content, weights)
    for name, build in WEIGHTS.items():
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            build(file)
        yield write(folder / f"{name}.keras", config, stream.getvalue())
    for name, content in _containers(folder, config, weights, whole).items():
        yield _put(folder / name, content)


def flipped(content: bytes, count: int, rng: random.Random) -> bytes:
    """Some bits flipped, most of them where a file says what it holds."""
    changed = bytearray(content)
    for n in range(count):
        places = range(len(content) if n % 2 else min(len(content), 4096))
        changed[rng.choice(places)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def swap(config: Any, rng: random.Random, wrong: list[Any] = WRONG) -> None:
    """Put something wrong in the place of one value, or leave the value out."""
    places = []
    stack = [config]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                stack.append(value)
    node, key = rng.choice(places)
    if rng.random() < 0.1 and isinstance(node, dict):
        del node[key]
    else:
        node[key] = copy.deepcopy(rng.choice(wrong))


def crafted(config: dict[str, Any]) -> dict[str, Any]:
    """Configs that are large, deep, or no config."""
    penalty = '{"class_name": "keras_penalties>Grouped", "config": {"penalty": '
    layer = {"class_name": "Dense", "config": {"name": "d", "kernel_regularizer": "l1"}}
    sae = {"registered_name": "keras_penalties>SparseAutoencoder", "class_name": "S"}
    evil = {"(a+)+$": {"class_name": "keras_penalties>L1", "config": {"strength": 1}}}
    proximal = {"class_name": "keras_penalties>Proximal", "config": {"penalties": evil}}
    return {
        "deep_lists": "[" * 100_000 + "]" * 100_000,
        "deep_open": "[" * 1_000_000,
        "deep_objects": '{"class_name":"A","config":' * 5_000 + "1" + "}" * 5_000,
        "deep_penalty": penalty * 45 + "1" + "}}" * 45,
        "many_values": '{"class_name":"A","config":[' + "0," * 2_000_001 + "0]}",
        "many_lists": '{"class_name":"A","config":[' + "[]," * 1_500_000 + "0]}",
        "many_objects": '{"class_name":"A","config":[' + "{}," * 300_001 + "0]}",
        "many_layers": {**config, "config": {"layers": [layer] * 3_000}},
        "same_names": {**config, "config": {"layers": [config] * 40}},
        "long_name": {"class_name": "A" * 3_000_000, "config": {}},
        "long_words": {**config, "config": {"B" * 10**6: "C" * 10**6}},
        "long_number": '{"class_name": "A", "config": ' + "9" * 100_000 + "}",
        "no_utf8": b'{"class_name": "\xff\xfe", "config": {}}',
        "utf16": '{"class_name": "A", "config": {}}'.encode("utf-16"),
        "a_list": "[1, 2]",
        "a_number": "3",
        "nothing": "",
        "null": "null",
        "no_class": "{}",
        "no_config": {"class_name": "Functional"},
        "sae_of_texts": {**sae, "config": {"weight_decay": "x", "sparsity": [1]}},
        "sae_infinite": {**sae, "config": {"weight_decay": 1e400, "rate": {}}},
        "slow_pattern": {**config, "compile_config": {"optimizer": proximal}},
        "losses": {**config, "compile_config": {"loss": [[[[1], "a"]], {"b": 2}]}},
        "no_mapping": {**config, "compile_config": [1], "config": "text"},
    }


def _host(file: Any) -> Any:
    group = file.create_group("layers/penalized/vars")
    group.attrs["name"] = "penalized_enc"
    return group


def _deep(file: Any) -> None:
    for _ in range(500):
        file = file.create_group("layers")


def _circle(file: Any) -> None:
    file["layers"] = file["/"]
    file["vars"] = file["/"]


def _linked(link: Any) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        _host(file)["0"] = link
        file["layers/other"] = link

    return build


def _dataset(**options: Any) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        _host(file).create_dataset("0", **options)

    return build


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (3,))
    _host(file).create_virtual_dataset("0", layout)


def _wide(file: Any) -> None:
    group = _host(file)
    for n in range(3_000):
        group.create_group(f"g{n}")
        group.create_dataset(str(n), data=np.float32(n))


def _names(file: Any) -> None:
    group = _host(file)
    group.attrs["name"] = np.zeros(5_000)
    file.create_group("layers/a/vars").attrs["name"] = "n" * 60_000
    file.create_group("layers/b/vars").attrs["name"] = b"\xff\xfe"


WEIGHTS: dict[str, Callable[[Any], None]] = {
    "h5_empty": lambda file: None,
    "h5_deep": _deep,
    "h5_circle": _circle,
    "h5_external_link": _linked(h5py.ExternalLink("/etc/passwd", "/")),
    "h5_soft_link": _linked(h5py.SoftLink("/layers/penalized/vars/0")),
    "h5_virtual": _virtual,
    "h5_wide": _wide,
    "h5_names": _names,
    "h5_outside": _dataset(shape=(3,), dtype="f4", external=[("/etc/passwd", 0, 12)]),
    "h5_huge": _dataset(shape=(10**12,), dtype="f4", chunks=(1000,)),
    "h5_huge_chunk": _dataset(shape=(3,), maxshape=(None,), chunks=(10**8,)),
    "h5_bomb": _dataset(data=np.zeros(10**6), compression="gzip"),
    "h5_text": _dataset(data="three numbers"),
    "h5_complex": _dataset(data=np.zeros(3, "c8")),
    "h5_compound": _dataset(data=np.zeros(3, [("a", "f4"), ("b", "i4")])),
    "h5_nan": _dataset(data=np.array([np.nan, np.inf, -1.0], "f4")),
    "h5_scalar": _dataset(data=1.0),
    "h5_null": _dataset(data=h5py.Empty("f4")),
}


def _containers(
    folder: Path, config: dict[str, Any], weights: bytes, whole: bytes
) -> dict[str, bytes]:
    """Archives that lie of themselves, and files that are none."""

    def archive(name: str, *args: Any, **kwargs: Any) -> bytes:
        return write(folder / name, *args, **kwargs).read_bytes()

    def lying(field: int, value: int, member: str, size: int = 4) -> bytes:
        """With another number in the list of members."""
        start = whole.rindex(b"PK\x01\x02", 0, whole.rindex(member.encode()))
        return _patched(whole, start + field, value, size)

    packed = zipfile.ZIP_DEFLATED
    end, many = whole.rindex(b"PK\x05\x06"), io.BytesIO()
    with zipfile.ZipFile(many, "w") as crowd:
        for n in range(30_000):
            crowd.writestr(f"assets/{n:060}", "")
    return {
        "bomb.keras": archive("bomb", b"[" + b" " * (80 * 2**20), None, packed),
        "weights_bomb.keras": archive("wb", config, bytes(300 * 2**20), packed),
        "packed.keras": archive("packed", config, weights, packed),
        "bzip2.keras": archive("bz", config, weights, zipfile.ZIP_BZIP2),
        "lzma.keras": archive("xz", config, weights, zipfile.ZIP_LZMA),
        "config_says_4_gb.keras": lying(24, 2**32 - 2, "config.json"),
        "config_says_1_byte.keras": lying(24, 1, "config.json"),
        "weights_say_4_gb.keras": lying(24, 2**32 - 2, "model.weights.h5"),
        "locked.keras": lying(8, 1, "config.json", 2),
        "elsewhere.keras": lying(42, 2**31, "model.weights.h5"),
        "packing_99.keras": lying(10, 99, "config.json", 2),
        "list_says_4_gb.keras": _patched(whole, end + 12, 2**32 - 2, 4),
        "list_elsewhere.keras": _patched(whole, end + 16, 2**31, 4),
        "crowd.keras": many.getvalue(),
        "empty.keras": b"",
        "text.keras": b"not a model",
        "zeros.keras": bytes(10**6),
        "weights.h5": weights,
        "half.weights.h5": weights[: len(weights) // 2],
        "signature.h5": b"\x89HDF\r\n\x1a\n" + bytes(1000),
    }


def _patched(content: bytes, at: int, value: int, size: int) -> bytes:
    number = struct.pack("<Q", value)[:size]
    return content[:at] + number + content[at + size :]
