"""Others' packages that need torch or JAX: `from oracles import torch`.

Each is imported by the test that first uses it, which is skipped where it is missing: a
machine with TensorFlow alone runs the rest of the file.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest


class Oracle:
    """A package that is imported when something of it is used."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks at what it collects
            raise AttributeError(name)
        package = pytest.importorskip(self._package)
        if hasattr(package, name):
            return getattr(package, name)
        return importlib.import_module(f"{self._package}.{name}")


coral_pytorch = Oracle("coral_pytorch")
entmax = Oracle("entmax")
jax = Oracle("jax")
kornia = Oracle("kornia")
optax = Oracle("optax")
pytorch_metric_learning = Oracle("pytorch_metric_learning")
torch = Oracle("torch")
