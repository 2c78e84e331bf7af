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
import importlib
import importlib.abc
import importlib.util
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from mutants.changes import ROOT, TESTS, Mutant, mutants_of
from mutants.killers import killer

OUT_OF_TIME = "OUT OF TIME"
AREAS = ("penalties", "losses", "layers", "optimizers", "strengths")


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


def outcome(
    path: Path, module: str, limit: int, mutant: Mutant | None = None
) -> str | None:
    """What killed it, in a fork of this process; None if nothing did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        if mutant is not None:
            sys.meta_path.insert(0, Changed(module, path, mutant.source))
        try:
            found = killer(path, module, mutant.owner if mutant else "") or ""
        except BaseException as error:
            found = f"{type(error).__name__} outside a test"
        os.write(writing, found.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGXCPU:
        return OUT_OF_TIME
    return found or (f"ended with {code}" if code else None)


def prepare() -> None:
    """Import once what every mutant needs: all except the package itself."""
    sys.path[:0] = [str(ROOT), str(TESTS)]
    os.chdir(ROOT)
    for name in ("keras", "hypothesis", "pytest", "scipy.stats", "sklearn.datasets"):
        importlib.import_module(name)
    assert not any(name.startswith("keras_penalties") for name in sys.modules)


def sampled(area: str, count: int, seed: int) -> list[Mutant]:
    """So many mutants of an area, each of all that there are as likely."""
    files = sorted((ROOT / "keras_penalties" / area).glob("*.py"))
    every = [m for f in files if f.name != "__init__.py" for m in mutants_of(f)]
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    print(f"{area}: {len(chosen)} of {len(every)} mutants", flush=True)
    return sorted(chosen, key=lambda m: (str(m.path), m.line))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--count", type=int, default=200, help="mutants in all")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--areas", nargs="+", default=AREAS, choices=AREAS)
    parser.add_argument(
        "--limit", type=int, default=300, help="seconds of a processor for each"
    )
    parser.add_argument(
        "--trust", action="store_true", help="don't run the tests unchanged first"
    )
    return parser.parse_args()


def main() -> None:
    given = arguments()
    print(f"seed {given.seed}, {given.count} mutants", flush=True)
    prepare()
    fails: dict[Path, str | None] = {}
    table: dict[str, list[bool]] = {area: [] for area in given.areas}
    survivors = []
    for area in given.areas:
        for mutant in sampled(area, given.count // len(given.areas), given.seed):
            path, module = mutant.path, mutant.module
            if path not in fails and not given.trust:
                fails[path] = outcome(path, module, given.limit)
                if fails[path]:
                    print(f"left out, unchanged it fails: {path.name}: {fails[path]}")
            if fails.get(path):
                continue
            start = time.monotonic()
            by = outcome(path, module, given.limit, mutant)
            took = time.monotonic() - start
            print(f"{took:6.1f} s  {by or 'SURVIVES'}  {mutant}", flush=True)
            alive = by in (None, OUT_OF_TIME)  # an endless loop is not told from a long
            table[area].append(not alive)
            survivors += [mutant] if alive else []
    print("\nsurvivors:", *survivors, sep="\n  ")
    print("\narea         killed  of")
    for area, killed in table.items():
        share = f"{sum(killed) / len(killed):.0%}" if killed else "-"
        print(f"{area:12} {sum(killed):6} {len(killed):3}  {share}")


if __name__ == "__main__":
    main()
