"""Every benchmark on every backend that is installed, and the page of the docs on it.

    python benchmarks/run.py [--quick] [--backends jax] [--trained]

Each backend has a process of its own, once on one processor and once on all. torch has
no bars, so it runs on all processors only. The results are in build/benchmarks/, from
where `--page` writes the page anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

from harness import Result
from page import write_page
from pages import read

HERE = Path(__file__).parent
RESULTS = HERE.parent / "build" / "benchmarks"
STEPS = ("step", "autoencoder")
SAELENS = ("saelens", "saelens_memory")
REST = ("input_gradients", "orthogonality", "spectral")
PLAN = {
    ("tensorflow", 1): (*STEPS, *SAELENS),
    ("jax", 1): (*STEPS, *SAELENS),
    ("tensorflow", 0): ("models", *STEPS, *REST, "scaling", "start"),
    ("jax", 0): ("models", *STEPS, *REST, "scaling", "start"),
    ("torch", 0): (*STEPS, *REST, *SAELENS),
}
"""The files for a backend, on one processor or, with 0, on all of them.

With TensorFlow or JAX, the torch of SAELens gets one thread, so that the two
    backends do not compete for the processors.
"""
TRAINED = ("compact", "ng", "sparsity", "targets")  # minutes of training, by --trained
QUICK = {
    "width": 32,
    "batch": 16,
    "features": 32,
    "rounds": 3,
    "block": 2,
    "runs": 1,
    "samples": 100,
    "hidden": 16,
    "steps": 20,
    "loop-steps": 10,
    "size": 32,
    "exponent": 4,
    "terms": 6,
}


def measure(backend: str, threads: int, options: list[str]) -> bool:
    """Run the files in one process, and return whether all of them passed."""
    files = [str(HERE / f"bench_{name}.py") for name in PLAN[backend, threads]]
    out = RESULTS / f"{backend}-{threads}.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files]
    print(f"\n== {backend}, {threads or 'all'} processors", flush=True)
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(
        [*command, f"--threads={threads}", f"--json={out}", *options],
        env=environment,
        check=False,
    )
    return finished.returncode == 0


def found() -> dict[tuple[str, int], list[Result]]:
    """The results by backend and number of processors."""
    paths = {(b, n): RESULTS / f"{b}-{n}.json" for b, n in PLAN}
    return {column: read(path) for column, path in paths.items() if path.exists()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    backends = list(dict.fromkeys(backend for backend, _ in PLAN))
    parser.add_argument("--backends", nargs="*", default=backends)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no page")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    parser.add_argument(
        "--trained", action="store_true", help="also those that train models: minutes"
    )
    chosen = parser.parse_args()
    start, well = time.perf_counter(), True
    RESULTS.mkdir(parents=True, exist_ok=True)
    sizes = [f"--{n}={v}" for n, v in QUICK.items()] if chosen.quick else []
    if not chosen.page:
        there = [b for b in chosen.backends if importlib.util.find_spec(b)]
        for old in RESULTS.glob("*.json"):
            old.unlink()
        for backend, threads in PLAN:
            if backend in there:
                well &= measure(backend, threads, sizes)
    if not chosen.quick:
        minutes = None if chosen.page else (time.perf_counter() - start) / 60
        write_page(found(), minutes)
    for name in TRAINED if chosen.trained else ():
        path = HERE / f"bench_{name}.py"
        if path.exists():
            command = [sys.executable, str(path), "--docs"]
            well &= subprocess.run(command, check=False).returncode == 0
    print(f"\n{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
