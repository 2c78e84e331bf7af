"""One place that knows every class and function by its names.

`@register` gives an object its Keras key (`package>Name`, what a saved file
holds), its snake_case string name (what `compile(loss="...")` and
`kernel_regularizer="..."` take) and its place in `registered()`, over which the
tests, the docs and `keras-penalties list` run.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, overload

import keras

from keras_penalties import checks, compat

T = TypeVar("T")

KINDS: dict[str, type] = {
    "loss": keras.losses.Loss,
    "penalty": keras.regularizers.Regularizer,
    "layer": keras.layers.Layer,
    "optimizer": keras.optimizers.Optimizer,
    "metric": keras.metrics.Metric,
    "callback": keras.callbacks.Callback,
    "schedule": keras.optimizers.schedules.LearningRateSchedule,
}
"""The class that Keras has for each kind of object."""


def add_kind(kind: str, base: type) -> None:
    """Let subclasses of `base` be registered as a kind of their own."""
    KINDS[kind] = base


@dataclass(frozen=True)
class Entry:
    """The names and the kind of one registered object."""

    key: str
    name: str
    kind: str
    obj: Any

    @property
    def package(self) -> str:
        """The part of the key before `>`."""
        return self.key.partition(">")[0]

    @cached_property
    def names(self) -> tuple[str, str, str]:
        """The key, the string name and the class's own name."""
        return self.key, self.name, self.obj.__name__


_ENTRIES: dict[str, Entry] = {}


def snake_case(name: str) -> str:
    """Turn a class name into its string name.

    Example:
        >>> snake_case("KLSparsity"), snake_case("L1")
        ('kl_sparsity', 'l1')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


@overload
def register(obj: T) -> T: ...
@overload
def register(
    obj: None = None, *, package: str | None = None, string_name: bool = True
) -> Callable[[T], T]: ...
def register(
    obj: Any = None, *, package: str | None = None, string_name: bool = True
) -> Any:
    """Register a loss, a penalty, a layer or a loss function under its names.

    Args:
        obj: The class, or the function `(y_true, y_pred)`, when `@register` is
            used without parentheses.
        package: The part of the Keras key before `>`. Default: the top-level
            package that the object is defined in. A script or a notebook has
            none and must give one.
        string_name: Whether the snake_case name also works in `compile` and in Keras'
            slots. If not, only the key `package>Name` works.

    Returns:
        The object itself, or a decorator.

    Raises:
        ValueError: if Keras or another object already has one of the names.
        TypeError: if the object is neither a class nor a function.

    Example:
        >>> import keras_penalties as kp
        >>> @kp.register(package="my_project")
        ... def summed_error(y_true, y_pred):
        ...     return (y_true - y_pred) ** 2
        >>> kp.losses.get("my_project>summed_error") is summed_error
        True
    """
    if obj is None:
        return lambda target: _register(target, package, string_name)
    return _register(obj, package, string_name)


def _register(obj: Any, package: str | None, string_name: bool) -> Any:
    kind = _kind_of(obj)
    package = package or _own_package(obj)
    key = f"{package}>{obj.__name__}"
    name = snake_case(obj.__name__)
    _refuse_clash(key, name, kind, obj, string_name)
    keras.saving.register_keras_serializable(package=package)(obj)
    _ENTRIES[key] = Entry(key, name, kind, obj)
    compat.add_string_names(kind, obj, [key, *([name] if string_name else [])])
    return obj


def _kind_of(obj: Any) -> str:
    if inspect.isclass(obj):
        if issubclass(obj, keras.Model):
            return "model"
        for kind, base in KINDS.items():
            if issubclass(obj, base):
                return kind
        return "object"
    if callable(obj) and hasattr(obj, "__name__"):
        return "loss"
    raise TypeError(
        "Invalid value for argument `obj`. Expected a class, or a function of "
        f"(y_true, y_pred). Received: obj={checks.shown(obj)} "
        f"(of type {type(obj).__name__})"
    )


def _own_package(obj: Any) -> str:
    package: str = obj.__module__.partition(".")[0]
    if package in ("__main__", "builtins"):
        raise ValueError(
            "Argument `package` is required for an object that is defined in a "
            f"script or a notebook. Received: package=None for {obj.__name__}. Use "
            f"`@register(package='my_project')`: the file that is saved will name "
            f"it 'my_project>{obj.__name__}'."
        )
    return package


def _refuse_clash(key: str, name: str, kind: str, obj: Any, string_name: bool) -> None:
    registered = keras.saving.get_registered_object(key)
    if registered is not None and not _is_rerun(registered, obj):
        raise ValueError(
            f"'{key}' is already registered: {_whose(registered)}. Choose another "
            "name, or another `package`."
        )
    if not string_name:
        return
    holder = compat.string_names(kind).get(name)
    if holder is not None and not _is_rerun(holder, obj):
        raise ValueError(
            f"The name '{name}' belongs to {_whose(holder)}. Choose another name, or "
            f"pass `string_name=False`, so that only the key '{key}' finds it."
        )


def _is_rerun(old: Any, new: Any) -> bool:
    """Whether a definition is entered again, which a prompt or a notebook allows."""
    same = (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
    return old is new or (same and hasattr(sys, "ps1"))


def _whose(obj: Any) -> str:
    if obj.__module__.partition(".")[0] == "keras":
        return f"Keras ({obj.__qualname__})"
    return f"{obj.__module__}.{obj.__qualname__}"


def registered(kind: str | None = None, package: str | None = None) -> Iterator[Entry]:
    """Every registered object, sorted by key, of one kind and package or of all.

    Example:
        >>> import keras_penalties as kp
        >>> from keras_penalties.registry import registered
        >>> [e.name for e in registered("penalty") if e.obj is kp.penalties.L1]
        ['l1']
    """
    for _, entry in sorted(_ENTRIES.items()):
        if kind in (None, entry.kind) and package in (None, entry.package):
            yield entry


def lookup(name: str, kind: str, base: type = object) -> Any:
    """The object of that kind with this name: a key, a class name or a string name.

    This package's own names come first, then any other registered one, then Keras'.
    A class that is no subclass of `base` is neither found nor proposed.

    Raises:
        ValueError: if there is none. The message has the names that are similar.
    """
    named = [e for e in _ENTRIES.values() if name in e.names]
    fitting = [e for e in named if e.kind == kind and _fits(e.obj, base)]
    if fitting:
        return min(fitting, key=lambda e: (e.package != "keras_penalties", e.key)).obj
    keras_names = compat.string_names(kind)
    holder = keras_names.get(name)
    if holder is not None and _fits(holder, base):
        return holder
    known = {n for e in registered(kind) if _fits(e.obj, base) for n in e.names[:2]}
    known |= {n for n, obj in keras_names.items() if _fits(obj, base)}
    hint = checks.near(name, known)
    elsewhere = sorted(named, key=lambda e: e.key)
    if elsewhere and elsewhere[0].kind != kind:
        hint = f" '{name}' is a {elsewhere[0].kind}, not a {kind}."
    elif elsewhere or holder is not None:
        owner = _whose(elsewhere[0].obj if elsewhere else holder)
        hint = f" '{name}' belongs to {owner}, which is no {base.__name__}.{hint}"
    raise ValueError(
        f"Unknown {kind} name: {checks.shown(name)}.{hint} "
        "`keras-penalties list` shows all names."
    )


def _fits(obj: Any, base: type) -> bool:
    return not inspect.isclass(obj) or issubclass(obj, base)
