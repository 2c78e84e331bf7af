"""One object of a config, and how its parts read as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""Whatever a JSON text holds: the file's author chose the types."""

OURS = "keras_penalties"
MAX_WORD = 200
MAX_TEXT = 300
MAX_ITEMS = 8
_UNSAID = {"name", "dtype", "reduction"}


@dataclass(frozen=True)
class Saved:
    """An object as Keras writes it: a class name and the constructor's arguments."""

    node: Mapping[str, Json]

    @cached_property
    def key(self) -> str:
        """What a registered class is found by, `package>Name`; else empty."""
        for name in ("registered_name", "class_name"):
            found = self.node.get(name)
            if isinstance(found, str) and ">" in found:
                return found[:MAX_WORD]
        return ""

    @cached_property
    def name(self) -> str:
        """The class's name, without a package."""
        return (self.key or word(self.node.get("class_name"))).rpartition(">")[2]

    @cached_property
    def package(self) -> str:
        """Where the class comes from: what registered it, or the module."""
        return self.key.partition(">")[0] or word(self.node.get("module"))

    @property
    def is_keras(self) -> bool:
        """Whether Keras itself has the class."""
        module = word(self.node.get("module"))
        named = module.partition(".")[0] == "keras" or self.name.startswith("__")
        # Keras 2's .h5 files have no modules.
        return not self.key and (named or "module" not in self.node)

    def is_ours(self, *names: str) -> bool:
        """Whether it is a class of this package, one of these if any are named."""
        ours = self.key == f"{OURS}>{self.name}"
        return ours and (not names or self.name in names)

    @cached_property
    def config(self) -> Mapping[str, Json]:
        """The constructor's arguments; none if they are damaged."""
        found = self.node.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def own_name(self) -> str:
        """The name of a layer, a model or an optimizer."""
        return word(self.config.get("name"))


def saved(node: Json) -> Saved | None:
    """The object that a part of a config describes, if the part describes one."""
    if isinstance(node, dict) and isinstance(node.get("class_name"), str):
        return Saved(node)
    return None


def mapping(node: Json) -> Mapping[str, Json]:
    """The part of a config, if it is a mapping, or an empty one."""
    return node if isinstance(node, dict) else {}


def listed(node: Json) -> list[Json]:
    """The part of a config, if it is a list, or an empty one."""
    return node if isinstance(node, list) else []


def number(node: Json) -> float | None:
    """The part of a config, if it is a number."""
    if isinstance(node, bool) or not isinstance(node, int | float):
        return None
    try:
        return float(node)
    except OverflowError:
        return math.inf if node > 0 else -math.inf


def word(node: Json) -> str:
    """The part of a config, if it is a text, at a bearable length."""
    return node[:MAX_WORD] if isinstance(node, str) else ""


def is_array(node: Json) -> bool:
    """Whether the part stands for an array that lies in the weights."""
    return isinstance(node, dict) and node.keys() == {"shape", "digest"}


def printable(text: str) -> str:
    """The text without what would move or colour a terminal's cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(node: Json, without: tuple[str, ...] = ()) -> str:
    """A part of a config as text, as a constructor call reads."""
    return _cut(printable(_shown(node, 0, without)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _shown(node: Json, depth: int, without: tuple[str, ...] = ()) -> str:
    if depth > 6:
        return "…"
    if isinstance(node, list):
        return f"[{', '.join(_items(map(_at(depth), node[:MAX_ITEMS]), len(node)))}]"
    if (found := saved(node)) is not None:
        if not isinstance(node.get("config"), dict):
            return word(node.get("config")) or found.name  # a function
        kept = {
            name: value
            for name, value in found.config.items()
            if name not in _UNSAID and name not in without and value is not None
        }
        return f"{found.name}({_pairs(kept, depth, '=')})"
    if is_array(node):
        return f"<array of shape {_shown(node['shape'], depth + 1)}>"
    if isinstance(node, dict):
        return f"{{{_pairs(node, depth, ': ')}}}"
    value = number(node)
    if isinstance(node, float) and value is not None:
        return f"{value:.6g}"  # Keras' numbers went through float32
    return repr(node[:MAX_WORD]) if isinstance(node, str) else str(node)[:MAX_WORD]


def _at(depth: int) -> Any:
    return lambda node: _shown(node, depth + 1)


def _pairs(values: Mapping[str, Json], depth: int, between: str) -> str:
    pairs = (
        f"{word(name)}{between}{_shown(value, depth + 1)}"
        for name, value in list(values.items())[:MAX_ITEMS]
    )
    return ", ".join(_items(pairs, len(values)))


def _items(texts: Any, count: int) -> Iterator[str]:
    yield from texts
    if count > MAX_ITEMS:
        yield f"… {count:,} in all"
