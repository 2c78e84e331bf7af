"""String names: `compile(loss="name")` and `kernel_regularizer="name"`.

- Private: Keras' tables of string names. `keras.losses.get(str)`,
  `keras.regularizers.get(str)` and `keras.metrics.get(str)` read nothing else
  (keras#20112). There is no public way: registered names and custom object scopes are
  not asked.
- Replaced: `Model.compile_from_config`, a public method. A `package>Name` in a saved
  `compile` comes back as the class, and a model whose loss or metric is a class can't
  be saved again. Keras has no other hook between the file and `compile`.
- Needless when these tests of `tests/test_needless.py` fail:
  `test_registered_names_are_unknown_to_keras_itself`,
  `test_a_loss_key_is_loaded_as_a_class`.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any

import keras

from keras_penalties.compat.private import Missing, private

_TABLES: dict[str, Any] = {
    "loss": private(
        "String names of losses in `compile`", "keras.src.losses:ALL_OBJECTS_DICT"
    ),
    "penalty": private(
        "String names of penalties in the slots of Keras' layers",
        "keras.src.regularizers:ALL_OBJECTS_DICT",
    ),
    "metric": private(
        "String names of metrics in `compile`", "keras.src.metrics:ALL_OBJECTS_DICT"
    ),
}


def string_names(kind: str) -> dict[str, Any]:
    """Keras' own table of string names for a kind of object, empty if it has none."""
    table = _TABLES.get(kind)
    return table if isinstance(table, dict) else {}


def add_string_names(kind: str, obj: Any, names: list[str]) -> None:
    """Let `compile(loss=name)` or a regularizer slot find `obj` by these names."""
    string_names(kind).update(dict.fromkeys(names, obj))


def _warn_of_missing_tables() -> None:
    """Keras itself raises where such a name is used: say beforehand what that means."""
    for table in _TABLES.values():
        if isinstance(table, Missing):
            warnings.warn(
                f"{table.message()} Pass the object itself in place of its name: "
                "`keras_penalties.losses.get(name)` or `keras_penalties.get(name)`.",
                stacklevel=2,
            )


def _keys_as_configs(given: Any) -> Any:
    """A saved argument of `compile`, its `package>Name` strings replaced by configs."""
    if isinstance(given, list):
        return [_keys_as_configs(item) for item in given]
    if isinstance(given, dict) and "class_name" not in given:
        return {name: _keys_as_configs(item) for name, item in given.items()}
    known = isinstance(given, str)
    found: Any = keras.saving.get_registered_object(given) if known else None
    if _is_class_of(keras.losses.Loss, found):
        return keras.saving.serialize_keras_object(found())
    if _is_class_of(keras.metrics.Metric, found):
        # The logs show a metric under the string that `compile` was given.
        return keras.saving.serialize_keras_object(found(name=given))
    return given


def _is_class_of(base: type, obj: Any) -> bool:
    return inspect.isclass(obj) and issubclass(obj, base)


_NAMED = ("loss", "metrics", "weighted_metrics")


def _mend_loading_of_keys() -> None:
    plain = getattr(keras.Model, "compile_from_config", None)
    if plain is None:
        return

    @functools.wraps(plain)
    def compile_from_config(self: Any, config: dict[str, Any]) -> None:
        if isinstance(config, dict):
            named = {name: config[name] for name in _NAMED if name in config}
            config = {**config, **_keys_as_configs(named)}
        plain(self, config)

    keras.Model.compile_from_config = compile_from_config


_warn_of_missing_tables()
_mend_loading_of_keys()
