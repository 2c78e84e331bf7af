"""Which small changes of the package no test notices: `make mutants N=200 SEED=1`.

A mutant is the package with one change of its source: another operator, comparison or
constant, a dropped argument, a removed call, a swapped branch. The tests that speak of
the changed file run on it: its doctests, the laws over its classes, and the test files
that mention its names most often. A mutant is killed if one of them fails, and survives
if none does: then either the change makes no difference, or a test is missing.

Keras and JAX are imported once. Each mutant runs in a fork of that process, in which
the changed source is what `import` finds.
"""

from __future__ import annotations

import argparse
import ast
import copy
import doctest
import importlib.abc
import importlib.util
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _pytest.doctest

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TESTS = Path(__file__).parent
ROOT = TESTS.parent
AREAS = ("penalties", "losses", "layers", "optimizers", "strengths")
# They time, need devices of their own, start processes, or run all the others.
NOT_RUN = re.compile(
    "speed|bench|docs|tutorial|devices|the_tests|laws|floors|cli|mutants|names|reload"
)
MOST_FILES, MOST_CLASSES = 3, 4
NOT_CHANGED = {"examples", "example_data", "example_inputs", "example_shapes"}


# What a mutant is.


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: Path
    source: str
    line: int
    change: str

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
        if field in ("annotation", "returns", "decorator_list", "keywords_of_class"):
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
    for parent, field, index in list(sites(tree)):
        held = getattr(parent, field)
        node = held if index is None else held[index]
        for other in changed(node):
            ast.copy_location(other, node)
            put(parent, field, index, other)
            source = ast.unparse(ast.fix_missing_locations(tree))
            put(parent, field, index, node)
            change = f"{short(node)}  →  {short(other)}"
            found.append(Mutant(path, source, node.lineno, change))
    return found


def put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def short(node: ast.AST) -> str:
    return ast.unparse(node).splitlines()[0][:70]


# The tests that speak of a file.


def names_in(path: Path) -> set[str]:
    """The public names that a file defines."""
    defined = (ast.ClassDef, ast.FunctionDef)
    body = ast.parse(path.read_text()).body
    return {n.name for n in body if isinstance(n, defined) and n.name[0] != "_"}


def test_files(path: Path) -> list[str]:
    """The test files that mention the file and its names the most often."""
    names = names_in(path) | {path.stem}
    pattern = re.compile(rf"\b({'|'.join(sorted(names))})\b")
    counted = {
        file: len(pattern.findall(file.read_text())) + 50 * (path.stem in file.stem)
        for file in sorted(TESTS.glob("test_*.py"))
        if not NOT_RUN.search(file.stem)
    }
    ranked = sorted(counted, key=lambda file: -counted[file])
    return [str(file) for file in ranked[:MOST_FILES] if counted[file]]


def classes_of(module: str) -> list[Any]:
    """The registered classes in a module, or else those that are built on it."""
    from keras_penalties.registry import registered

    entries = list(registered(None, "keras_penalties"))
    own = [e.obj for e in entries if e.obj.__module__ == module]
    heirs = [
        e.obj
        for e in entries
        if any(base.__module__ == module for base in getattr(e.obj, "__mro__", ()))
    ]
    users = [
        e.obj
        for e in entries
        if any(
            getattr(value, "__module__", None) == module
            for value in vars(sys.modules[e.obj.__module__]).values()
        )
    ]
    # A class of its own says the most; of those that are built on a file, a few do.
    others = heirs or users
    return own or others[:: max(1, len(others) // MOST_CLASSES)][:MOST_CLASSES]


def run_doctests(module: str) -> None:
    """With the options of pyproject.toml, of which NUMBER is pytest's own."""
    checker = _pytest.doctest._get_checker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    flags |= doctest.register_optionflag("NUMBER")
    runner = doctest.DocTestRunner(checker, verbose=False, optionflags=flags)
    for test in doctest.DocTestFinder().find(sys.modules[module]):
        runner.run(test)
        assert not runner.failures, test.name


def run_laws(module: str) -> None:
    """The laws over the classes of a module, one after another."""
    import keras
    import laws.book as book

    import keras_penalties as kp

    for cls in classes_of(module):
        kind = (
            (kp.penalties.Penalty, book.PENALTY_LAWS),
            (kp.losses.Loss, book.LOSS_LAWS),
            (keras.layers.Layer, book.LAYER_LAWS),
        )
        laws = next((laws for base, laws in kind if issubclass(cls, base)), None)
        if laws is None and cls in vars(kp.strengths).values():
            laws = book.STRENGTH_LAWS
        if laws is None or not hasattr(cls, "examples"):
            continue
        for _, make in book.examples_of(cls.__name__, cls):
            for law in laws.values():
                keras.utils.set_random_seed(0)
                example = make()
                if law.applies(example) and not owed(law.name, example):
                    law.check(example)
        for law in book.CLASS_LAWS.values():
            if law.applies(cls):
                law.check(cls)


def owed(law: str, example: Any) -> bool:
    import test_laws

    return bool(test_laws.owed(law, example))


def run_tests(path: Path, module: str) -> str | None:
    """What kills the package as `import` finds it: None if nothing does."""
    import pytest

    for what, run in (("doctest", run_doctests), ("law", run_laws)):
        try:
            importlib.import_module("keras_penalties")
            importlib.import_module(module)
            import laws  # noqa: F401

            run(module)
        except BaseException as error:  # also pytest's own outcomes
            return f"{what}: {type(error).__name__} {error}".splitlines()[0][:60]
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    for file in test_files(path):
        code = pytest.main([*options, file])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return Path(file).name
    return None


# Running mutants.


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module's source changed, and no other module."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self.module, self.path, self.source = module, path, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=None
        )

    def exec_module(self, module: Any) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def outcome(path: Path, module: str, source: str | None, limit: float) -> str | None:
    """What killed it, in a fork of this process; None if it survived."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        if source is not None:
            sys.meta_path.insert(0, Changed(module, path, source))
        try:
            found = run_tests(path, module) or ""
        except BaseException as error:
            found = f"{type(error).__name__} outside a test"
        os.write(writing, found.encode())
        os._exit(0)
    os.close(writing)
    ended = waited(child, limit)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if not ended:
        return "out of time"
    return text or (None if ended == "well" else "crash")


def waited(child: int, limit: float) -> str:
    """Wait for a child: "well", "badly", or "" if it had to be ended."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "well" if status == 0 else "badly"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return ""


def prepare() -> None:
    """Import once what every mutant needs: all but the package itself."""
    sys.path[:0] = [str(ROOT), str(TESTS)]
    os.chdir(ROOT)
    for name in ("keras", "hypothesis", "pytest", "scipy.optimize", "scipy.stats"):
        importlib.import_module(name)
    for name in ("sklearn.linear_model", "sklearn.datasets", "statsmodels.api"):
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"{name} is missing: each mutant fails or skips its tests")
    assert not any(name.startswith("keras_penalties") for name in sys.modules)


def sampled(area: str, count: int, seed: int) -> list[Mutant]:
    """So many mutants of an area, each of all that there are as likely."""
    files = sorted((ROOT / "keras_penalties" / area).glob("*.py"))
    every = [m for f in files if f.name != "__init__.py" for m in mutants_of(f)]
    print(f"{area}: {len(every)} mutants in all", flush=True)
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    return sorted(chosen, key=lambda m: (str(m.path), m.line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="mutants in all")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--areas", nargs="+", default=AREAS)
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds beyond plain"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.count} mutants", flush=True)
    prepare()
    plain: dict[Path, float] = {}
    table, survivors = {}, []
    for area in options.areas:
        killed = tried = 0
        for mutant in sampled(area, options.count // len(options.areas), options.seed):
            if mutant.path not in plain:
                start = time.monotonic()
                failed = outcome(mutant.path, mutant.module, None, 900.0)
                plain[mutant.path] = time.monotonic() - start
                if failed:
                    print(f"{mutant.path.name}: fails unchanged, {failed}", flush=True)
                    plain[mutant.path] = 0.0
            if not plain[mutant.path]:
                continue
            limit = 2.0 * plain[mutant.path] + options.limit
            start = time.monotonic()
            by = outcome(mutant.path, mutant.module, mutant.source, limit)
            seconds = time.monotonic() - start
            tried, killed = tried + 1, killed + (by is not None)
            print(f"{seconds:6.1f} s  {by or 'SURVIVES'}  {mutant}", flush=True)
            if by is None:
                survivors.append(mutant)
        table[area] = killed, tried
    print("\nsurvivors:", *survivors, sep="\n  ")
    print("\narea         killed of tried")
    for area, (killed, tried) in table.items():
        share = f"{killed / tried:.0%}" if tried else "-"
        print(f"{area:12} {killed:4} {tried:4}  {share}")


if __name__ == "__main__":
    main()
