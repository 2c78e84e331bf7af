"""Import every module of a package and return the objects that it registers."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from keras_penalties.registry import registered


def discover(package: ModuleType) -> dict[str, Any]:
    """The registered public objects of a package's modules, by name.

    A new file therefore needs no entry in any list.
    """
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return {
        entry.obj.__name__: entry.obj
        for entry in registered()
        if entry.obj.__module__.startswith(package.__name__ + ".")
    }
