"""`get_config` from the signature: an attribute has its argument's name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras

from keras_penalties import checks
from keras_penalties.anchors import Anchor, hosted


def arguments(cls: type) -> list[str]:
    """The names of a class's constructor arguments.

    `**kwargs` stands for the arguments that have a default in the constructor of the
    next base class: a subclass itself must give the others. What a class of Keras takes
    is left out, since its own `get_config` has it.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found: dict[str, None] = {}
    inherited = False
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "keras":
            break
        if "__init__" not in vars(base):
            continue
        _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for p in parameters:
            if p.kind in named and not (inherited and p.default is p.empty):
                found[p.name] = None
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
        inherited = True
    return list(found)


def to_config(obj: Any) -> dict[str, Any]:
    """Every constructor argument of `obj` by name, ready for JSON."""
    return {name: _serialized(value, obj) for name, value in given(obj).items()}


def given(obj: Any) -> dict[str, Any]:
    """Every constructor argument of `obj` by name, as the object keeps it."""
    stored_as = getattr(obj, "stored_as", {})
    names = arguments(type(obj))
    return {name: getattr(obj, stored_as.get(name, name)) for name in names}


def _serialized(value: Any, owner: Any) -> Any:
    if isinstance(value, Anchor):
        return value.config(owner)
    return keras.saving.serialize_keras_object(value)


def from_config(cls: type, config: dict[str, Any]) -> Any:
    """An object of `cls` from what `to_config` gave, nested objects included.

    Keras itself leaves a nested object (a schedule, a base loss) as a plain dict.
    """
    return called(cls, [], {k: _deserialized(value) for k, value in config.items()})


def called(cls: type, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """`cls(*args, **kwargs)`, of what a string or a file says.

    Raises:
        ValueError: also for arguments that the class lacks, or that are missing.
    """
    try:
        return cls(*args, **kwargs)
    except TypeError as error:
        known = arguments(cls)
        reason = f"{error}."
        unknown = [name for name in kwargs if name not in known]
        for name in (name for name in unknown if f"'{name}'" in str(error)):
            hint = checks.near(name, known)
            reason = f"{cls.__name__} has no argument {checks.shown(name)}.{hint}"
        takes = ", ".join(known) or "none"
        raise ValueError(f"{reason} Arguments of {cls.__name__}: {takes}.") from error


def _deserialized(value: Any) -> Any:
    if isinstance(value, list):
        return [_deserialized(item) for item in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _deserialized(item) for key, item in value.items()}
    return keras.saving.deserialize_keras_object(value)


class FromSignature:
    """Config, equality, hash and repr of an immutable object, from its signature."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return to_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The object that `get_config` described."""
        obj: Self = from_config(cls, config)
        return obj

    def _identity(self) -> str:
        with hosted():
            return json.dumps(self.get_config(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((type(self), self._identity()))

    def __repr__(self) -> str:
        values = (f"{n}={getattr(self, n)!r}" for n in arguments(type(self)))
        return f"{type(self).__name__}({', '.join(values)})"


class LayerFromSignature(keras.layers.Layer):
    """A layer, or a model, whose config comes from its constructor's signature."""

    stored_as: ClassVar[Mapping[str, str]] = {}
    """The attributes of those arguments whose own name Keras has taken."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, and those of every Keras layer."""
        return {**super().get_config(), **to_config(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The layer that `get_config` described, nested objects included."""
        layer: Self = from_config(cls, config)
        return layer
