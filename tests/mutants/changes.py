"""What a mutant is: the source of one file with one change."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
NOT_CHANGED = {"examples", "example_data", "example_inputs", "example_shapes"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: Path
    source: str
    line: int
    change: str
    owner: str
    """The class that is changed, or ""."""

    @property
    def area(self) -> str:
        return self.path.relative_to(ROOT).parts[1]

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts)

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.change}"


BINARY: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """The node, in each way that it can be changed."""
    if (isinstance(node, ast.BinOp) and type(node.op) in BINARY) or (
        isinstance(node, ast.AugAssign) and type(node.op) in BINARY
    ):
        yield with_fields(node, op=BINARY[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for op in COMPARISONS.get(type(node.ops[0]), ()):
            yield with_fields(node, ops=[op(), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        yield with_fields(
            node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And()
        )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(2.0 * node.value if node.value else 1.0)
    elif isinstance(node, ast.IfExp):
        yield with_fields(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.If):
        yield with_fields(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call):
        for number in range(len(node.keywords)):
            kept = [k for i, k in enumerate(node.keywords) if i != number]
            yield with_fields(node, keywords=kept)
        if len(node.args) > 1:
            yield with_fields(node, args=node.args[:-1])
        if node.args and not isinstance(node.args[0], ast.Starred):
            yield node.args[0]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def with_fields(node: ast.AST, **fields: Any) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def sites(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Each place where a node lies that may change: its parent, the field, the index.

    Annotations, decorators, errors and what the laws themselves are fed with stay.
    """
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or unchangeable(child):
                continue
            yield node, field, index if isinstance(value, list) else None
            yield from sites(child)


def unchangeable(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name in NOT_CHANGED
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "checks.refuse"


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a file."""
    tree, found = ast.parse(path.read_text()), []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    owners = {id(n): c.name for c in classes for n in ast.walk(c)}
    for parent, field, index in list(sites(tree)):
        held = getattr(parent, field)
        node = held if index is None else held[index]
        for other in changed(node):
            ast.copy_location(other, node)
            put(parent, field, index, other)
            source = ast.unparse(ast.fix_missing_locations(tree))
            put(parent, field, index, node)
            change = f"{short(node)}  →  {short(other)}"
            owner = owners.get(id(node), "")
            found.append(Mutant(path, source, node.lineno, change, owner))
    return found


def put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def short(node: ast.AST) -> str:
    return ast.unparse(node).splitlines()[0][:70]
