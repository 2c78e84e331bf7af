"""The options of the benchmarks, and where their results go.

pytest benchmarks/bench_step.py --width 256 --batch 32 --threads 1
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from harness import Result, markdown, use_threads

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OPTIONS = {
    "features": (784, "inputs of the perceptron"),
    "width": (1024, "units of its two hidden layers"),
    "batch": (128, "samples in a batch"),
    "rounds": (41, "how often ours and the rival take turns"),
    "block": (2, "training steps in a turn"),
    "runs": (3, "how often, where a turn takes seconds"),
    "samples": (1797, "digits for the autoencoder"),
    "hidden": (192, "units of its code"),
    "steps": (1000, "its training steps"),
    "loop-steps": (100, "those that the eager loop really takes"),
    "size": (512, "rows and columns of the matrix for the SVD"),
    "exponent": (8, "the largest layer has 10 to this power of parameters, to 8"),
    "terms": (300, "penalty terms in one model, three on each layer"),
    "threads": (0, "processors to use, 0 for all"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    for name, (default, text) in OPTIONS.items():
        group.addoption(f"--{name}", type=int, default=default, help=text)
    group.addoption("--json", help="a file for the results")


def pytest_configure(config: pytest.Config) -> None:
    use_threads(config.getoption("threads"))  # before a test file imports a backend
    config.stash[RESULTS] = []


RESULTS = pytest.StashKey[list[Result]]()


@pytest.fixture(scope="session")
def options(pytestconfig):
    return pytestconfig.option


@pytest.fixture
def report(pytestconfig):
    """Takes results, and writes those so far: a run that is cut short keeps them."""

    def take(results):
        known = pytestconfig.stash[RESULTS]
        known.extend(results)
        if path := pytestconfig.getoption("json"):
            Path(path).write_text(json.dumps([asdict(r) for r in known]))

    return take


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if results := config.stash[RESULTS]:
        terminalreporter.write_line("\n" + markdown(results))
