"""The tests that speak of a file: its doctests, its laws, and the test files."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import _pytest.doctest
import pytest

from mutants.changes import TESTS

# They time, need devices of their own, start processes, or run all the others.
NOT_RUN = re.compile(
    "speed|bench|docs|tutorial|devices|the_tests|laws|floors|cli|names|reload"
)
MOST_FILES, MOST_CLASSES = 5, 4


def names_in(path: Path) -> set[str]:
    """The public names that a file defines."""
    defined = (ast.ClassDef, ast.FunctionDef)
    body = ast.parse(path.read_text()).body
    return {n.name for n in body if isinstance(n, defined) and n.name[0] != "_"}


def test_files(path: Path, module: str) -> list[str]:
    """The test files that mention the file, its names or its users the most often."""
    users = {cls.__name__ for cls in classes_of(module, "")}
    names = names_in(path) | users | {path.stem}
    pattern = re.compile(rf"\b({'|'.join(sorted(names))})\b")
    counted = {
        file: len(pattern.findall(file.read_text())) + 50 * (path.stem in file.stem)
        for file in sorted(TESTS.glob("test_*.py"))
        if not NOT_RUN.search(file.stem)
    }
    ranked = sorted(counted, key=lambda file: -counted[file])
    return [str(file) for file in ranked[:MOST_FILES] if counted[file]]


def classes_of(module: str, owner: str) -> list[Any]:
    """The changed class; or those in its file, or those that are built on the file."""
    from keras_penalties.registry import registered

    classes = [e.obj for e in registered(None, "keras_penalties")]
    own = [c for c in classes if c.__module__ == module]
    changed = [c for c in own if c.__name__ == owner]
    if changed:
        return changed
    heirs = [c for c in classes if module in {b.__module__ for b in c.__mro__}]
    users = [c for c in classes if uses(c, module)]
    found = own or heirs or users
    return found[:: max(1, len(found) // MOST_CLASSES)][:MOST_CLASSES]


def uses(cls: Any, module: str) -> bool:
    """Whether the file of a class imports something of the module."""
    names = vars(sys.modules[cls.__module__]).values()
    return any(getattr(value, "__module__", None) == module for value in names)


def run_doctests(module: str, owner: str) -> None:
    """With the options of pyproject.toml, of which NUMBER is pytest's own."""
    checker = _pytest.doctest._get_checker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    flags |= doctest.register_optionflag("NUMBER")
    runner = doctest.DocTestRunner(checker, verbose=False, optionflags=flags)
    for test in doctest.DocTestFinder().find(sys.modules[module]):
        runner.run(test)
        assert not runner.failures, test.name


def run_laws(module: str, owner: str) -> None:
    """The laws over the classes of a module, one after another."""
    import keras
    from laws.book import CLASS_LAWS, examples_of

    for cls in classes_of(module, owner):
        for _, make in examples_of(cls.__name__, cls):
            for law in book_of(cls).values():
                keras.utils.set_random_seed(0)
                example = make()
                if law.applies(example):
                    law.check(example)
        for law in CLASS_LAWS.values():
            if hasattr(cls, "examples") and law.applies(cls):
                law.check(cls)


def book_of(cls: Any) -> Any:
    import keras
    from laws.book import LAYER_LAWS, LOSS_LAWS, PENALTY_LAWS, STRENGTH_LAWS

    import keras_penalties as kp

    if cls in vars(kp.strengths).values():
        return STRENGTH_LAWS
    books = (
        (kp.penalties.Penalty, PENALTY_LAWS),
        (kp.losses.Loss, LOSS_LAWS),
        (keras.layers.Layer, LAYER_LAWS),
    )
    return next((book for base, book in books if issubclass(cls, base)), {})


def killer(path: Path, module: str, owner: str = "") -> str | None:
    """What fails on the package as `import` finds it: None if nothing does."""
    for what, run in (("doctest", run_doctests), ("law", run_laws)):
        try:
            importlib.import_module(module)
            run(module, owner)
        except BaseException as error:  # pytest's own outcomes are no `Exception`
            return f"{what}: {type(error).__name__} {error}".splitlines()[0][:60]
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    for file in test_files(path, module):
        code = pytest.main([*options, file])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return Path(file).name
    return None
