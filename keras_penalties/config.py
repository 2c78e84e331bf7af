"""`get_config` from the signature: an attribute has its argument's name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras


def arguments(cls: type) -> list[str]:
    """The names of a class's own constructor arguments, `**kwargs` left out."""
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in named and p.name != "self"]


def to_config(obj: Any) -> dict[str, Any]:
    """Every constructor argument of `obj` by name, ready for JSON."""
    stored_as = getattr(obj, "stored_as", {})
    return {
        name: keras.saving.serialize_keras_object(
            getattr(obj, stored_as.get(name, name))
        )
        for name in arguments(type(obj))
    }


def from_config(cls: type, config: dict[str, Any]) -> Any:
    """An object of `cls` from what `to_config` gave, nested objects included.

    Keras itself leaves a nested object (a schedule, a base loss) as a plain dict.
    """
    return cls(**{k: _deserialized(value) for k, value in config.items()})


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
