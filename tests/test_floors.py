"""Imports go down the floors only, and never in a circle."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

PACKAGE = Path(__file__).parents[1] / "keras_penalties"
FLOORS = {
    0: "registry config anchors checks typing autodiff numerics sums compiling compat "
    "expressions discovery docstrings files masks tables datasets",
    1: "strengths penalties losses metrics",
    2: "hosting",
    3: "layers optimizers terms plots callbacks fisher compaction explain penalize "
    "activations dictionary paths",
    4: "models __init__ demo __main__",
}
FLOOR = {unit: floor for floor, units in FLOORS.items() for unit in units.split()}
FILES = sorted(PACKAGE.rglob("*.py"))


def unit_of(file: Path) -> str:
    """The part of the layout that a file belongs to: a module or a folder."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, inside functions too, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_units(tree: ast.AST) -> set[str]:
    """The parts of this package that a file imports; a bare name is `__init__`'s."""
    names = [m.split(".") for m in imported_modules(tree)]
    own = [parts[1:] or ["__init__"] for parts in names if parts[0] == PACKAGE.name]
    units = {unit_of(file) for file in FILES}
    return {parts[0] if parts[0] in units else "__init__" for parts in own}


@pytest.mark.parametrize("unit", sorted({unit_of(file) for file in FILES}))
def test_every_part_has_a_floor(unit):
    assert unit in FLOOR, f"say in FLOORS on which floor `{unit}` stands"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_go_down(file):
    floor = FLOOR[unit_of(file)]
    above = [u for u in imported_units(ast.parse(file.read_text())) if FLOOR[u] > floor]
    assert not above


def test_no_circles_between_parts():
    graph: dict[str, set[str]] = {}
    for file in FILES:
        unit, units = unit_of(file), imported_units(ast.parse(file.read_text()))
        graph.setdefault(unit, set()).update(units - {unit})
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def imported_files(file: Path) -> set[Path]:
    """The files of this package that a file imports, inside functions too.

    `from package.folder import name` is the file of that name, or else the folder's
    `__init__`. Only what `__init__` says to an editor is left out.
    """
    found = set()
    for name in imported_modules(without_type_checking(ast.parse(file.read_text()))):
        parts = name.split(".")
        while parts and parts[0] == PACKAGE.name:
            base = PACKAGE.parent.joinpath(*parts)
            path = base.with_suffix(".py")
            path = path if path.is_file() else base / "__init__.py"
            if path.is_file():
                found.add(path)
                break
            parts.pop()
    return found - {file}


def without_type_checking(tree: ast.Module) -> ast.Module:
    """The tree without what runs for a type checker only."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(kept, [])


def circles(graph: dict[Path, set[Path]]) -> list[set[Path]]:
    """The files that import each other, each circle as a set."""
    reach = {file: {file} for file in graph}
    for _ in graph:
        for file, others in graph.items():
            reach[file] |= {far for near in others for far in reach[near]}
    found = [{b for b in reach[a] if a in reach[b]} for a in graph]
    return [circle for n, circle in enumerate(found) if circle not in found[:n]]


def test_no_circles_between_files():
    graph = {file: imported_files(file) for file in FILES}
    names = [
        sorted(str(f.relative_to(PACKAGE)) for f in circle)
        for circle in circles(graph)
        if len(circle) > 1
    ]
    assert names == []


def test_a_circle_between_files_is_seen():
    a, b, c = map(Path, "abc")
    assert {a, b} in circles({a: {b}, b: {a}, c: {a}})
    assert {c} in circles({a: {b}, b: {a}, c: {a}})
    folder = PACKAGE / "penalties"
    assert folder / "concave.py" in imported_files(folder / "grouped.py")
    assert PACKAGE / "checks.py" in imported_files(folder / "grouped.py")


def test_private_keras_only_in_compat():
    users = {unit_of(file) for file in FILES if "keras.src" in file.read_text()}
    assert users == {"compat"}


def test_an_import_up_or_by_the_front_door_is_seen():
    source = "def f():\n    from keras_penalties.layers import base\n"
    assert imported_units(ast.parse(source)) == {"layers"}
    for source in ("import keras_penalties as kp", "from keras_penalties import get"):
        assert imported_units(ast.parse(source)) == {"__init__"}
