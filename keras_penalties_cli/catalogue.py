"""Every registered name of the package, read from its source without importing it."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "keras_penalties"
_KINDS = {
    "Model": "model",
    "Loss": "loss",
    "Regularizer": "penalty",
    "Dense": "layer",
    "Layer": "layer",
    "Optimizer": "optimizer",
    "Metric": "metric",
    "Callback": "callback",
    "LearningRateSchedule": "schedule",
    "Strength": "strength",
}
"""The kind of a class that has a base of that name; the first that fits counts."""
_Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Entry:
    """One registered class or function."""

    key: str
    """What a saved file holds: `package>Name`."""
    name: str
    """What a string in `compile` holds."""
    kind: str
    where: str
    """The module that defines the object."""
    signature: str
    doc: str

    @property
    def line(self) -> str:
        """The formula, or else the summary."""
        return formula(self.doc) or summary(self.doc)


def folder() -> Path:
    """Where the package lies. Nothing of it is imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named '{PACKAGE}'", name=PACKAGE)
    return Path(spec.origin).parent


def version() -> str:
    """The package's version."""
    found = re.search(r'^__version__ = "(.+)"', _text(folder() / "__init__.py"), re.M)
    return found[1] if found else "unknown"


def entries() -> list[Entry]:
    """Every registered object, sorted by kind and name."""
    return sorted(_Source(folder()).entries(), key=lambda e: (e.kind, e.name))


def snake_case(name: str) -> str:
    """A class name as its string name, as `keras_penalties.registry` has it.

    Example:
        >>> snake_case("KLSparsity"), snake_case("L1")
        ('kl_sparsity', 'l1')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def formula(doc: str | None) -> str:
    """The formula of a docstring: the first code after a colon or opening a paragraph.

    Empty if there is no such code above the first section, such as `Args:`. Of a loss
    of Keras, the line of code `loss = ...`, if the formula is one line.

    Example:
        >>> formula("The sum of all sizes: `Σ|x|`, which makes zeros.")
        'Σ|x|'
    """
    text = inspect.cleandoc(doc or "")
    above = re.split(r"\n\w+:\n", text)[0]
    found = re.search(r"(?:\n\n|:\s)`([^`]+)`", above)
    found = found or re.search(r"\n```python\nloss = (.+)\n```", text)
    return " ".join(found[1].split()) if found else ""


def summary(doc: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())


class _Source:
    """The classes and functions of a package's source.

    Parsing takes most of the time: only files that register something are parsed, and
    those with a base of what these register.
    """

    def __init__(self, package: Path) -> None:
        self._texts = {
            _module(path.relative_to(package)): _text(path)
            for path in sorted(package.rglob("*.py"))
        }
        self._trees: dict[str, ast.Module] = {}

    @cached_property
    def _homes(self) -> dict[str, str]:
        """The module of each class."""
        return {
            name: module
            for module, text in self._texts.items()
            for name in re.findall(r"^class (\w+)", text, re.MULTILINE)
        }

    def _tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            self._trees[module] = ast.parse(self._texts[module])
        return self._trees[module]

    def _class(self, name: str) -> ast.ClassDef | None:
        if name not in self._homes:
            return None
        nodes = self._tree(self._homes[name]).body
        classes = (node for node in nodes if isinstance(node, ast.ClassDef))
        return next((node for node in classes if node.name == name), None)

    def entries(self) -> Iterator[Entry]:
        for module, text in self._texts.items():
            if re.search(r"^@register\b", text, re.MULTILINE):
                yield from self._registered(module)

    def _registered(self, module: str) -> Iterator[Entry]:
        for node in self._tree(module).body:
            if isinstance(node, _Definition) and _decorated(node):
                yield self._entry(module, node)

    def _entry(self, module: str, node: _Definition) -> Entry:
        key, name = f"{PACKAGE}>{node.name}", snake_case(node.name)
        if isinstance(node, ast.ClassDef):
            kinds = set(self._kinds(node))
            kind = next((k for k in _KINDS.values() if k in kinds), "object")
            signature = _signature(node.name, self._constructor(node))
        else:
            kind, signature = "loss", _signature(node.name, node)
        doc = ast.get_docstring(node) or ""
        return Entry(key, name, kind, module, signature, doc)

    def _bases(self, node: ast.ClassDef) -> Iterator[str]:
        for base in node.bases:
            yield base.attr if isinstance(base, ast.Attribute) else ast.unparse(base)

    def _kinds(self, node: ast.ClassDef) -> Iterator[str]:
        for base in self._bases(node):
            if base in _KINDS:
                yield _KINDS[base]
            elif found := self._class(base):
                yield from self._kinds(found)

    def _constructor(self, node: ast.ClassDef) -> ast.FunctionDef | None:
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return item
        for base in self._bases(node):
            found = self._class(base)
            if found and found is not node and (made := self._constructor(found)):
                return made
        return None


def _module(path: Path) -> str:
    return ".".join((PACKAGE, *path.with_suffix("").parts))


def _decorated(node: _Definition) -> bool:
    return any(re.match(r"register\b", ast.unparse(d)) for d in node.decorator_list)


def _signature(name: str, function: ast.FunctionDef | None) -> str:
    if function is None:
        return f"{name}()"
    arguments = function.args
    if function.name == "__init__":
        arguments.args = [a for a in arguments.args if a.arg != "self"]
    for argument in (*arguments.args, *arguments.kwonlyargs):
        argument.annotation = None
    for rest in (arguments.vararg, arguments.kwarg):
        if rest is not None:
            rest.annotation = None
    return f"{name}({ast.unparse(arguments)})"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
