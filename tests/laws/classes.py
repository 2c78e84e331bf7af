"""Laws of whole classes: their examples try each argument, and each has an effect."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from strategies import generic, inside

from keras_penalties.config import arguments
from keras_penalties.losses import Loss
from keras_penalties.metrics import Metric
from keras_penalties.penalties import Penalty
from laws import layers, losses, metrics, strengths
from laws.book import CLASS_LAWS, array, law, prox, value

SQUARE = np.random.default_rng(6).standard_normal((4, 4))
INHERITED = {"name", "reduction", "dtype", "trainable", "ignore"}
"""Arguments that many classes share, which the other laws vary themselves."""
OF_PENALTIES = {"strength"}
"""Only a multiplier, which the laws of the penalties vary themselves."""
WITHOUT_EFFECT_HERE = {
    # From some number on, more iterations find the same singular value.
    "SpectralNorm": {"iterations"},
    # It goes with other weights: `test_weights_of_independent_labels_come_in_pairs`.
    "ClassWeighted": {"multi_label"},
    # It draws places between two batches: `test_gradient_penalty_is_between_the_pairs`.
    "GradientPenalty": {"seed"},
    # These need a dead unit, and a gradient: see `test_dictionary_layers.py`.
    "AuxK": {"k", "after"},
    "JumpReLU": {"bandwidth"},
}


def own_arguments(cls: Any) -> list[str]:
    """The arguments that the class adds to those of its base class."""
    excepted = INHERITED | (OF_PENALTIES if issubclass(cls, Penalty) else set())
    return [name for name in arguments(cls) if name not in excepted]


def configs(cls: Any) -> list[dict[str, Any]]:
    return [example.get_config() for example in cls.examples()]


def varied(value: Any) -> str:
    """A value to compare with others, without the names that Keras counts up."""

    def nameless(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: nameless(v) for k, v in x.items() if k != "name"}
        return [nameless(v) for v in x] if isinstance(x, list | tuple) else x

    return json.dumps(nameless(value), sort_keys=True)


@law(book=CLASS_LAWS)
def every_argument_is_varied_by_the_examples(cls: Any) -> None:
    found = configs(cls)
    constant = [
        name
        for name in own_arguments(cls)
        if len({varied(config[name]) for config in found}) < 2
    ]
    assert constant == []


@law(book=CLASS_LAWS)
def the_defaults_are_those_of_the_docs(cls: Any) -> None:
    """Each number and each bool has its default in the docstring, and it is right."""
    for name, parameter in inspect.signature(cls).parameters.items():
        default = parameter.default
        if name in INHERITED or not isinstance(default, int | float):
            continue
        about = re.search(
            rf"^    {name}: (.*?)(?=^    \S|^\S|\Z)",
            inspect.getdoc(cls) or "",
            re.MULTILINE | re.DOTALL,
        )
        assert about, f"{cls.__name__} does not document `{name}`"
        said = re.search(r"Default\s+`?([^\s`]+?)[`.,:;]*(\s|$)", about[1])
        assert said, f"{cls.__name__} does not say the default of `{name}`"
        assert ast.literal_eval(said[1]) == default, (cls.__name__, name)


@law(lambda cls: bool(own_arguments(cls)), book=CLASS_LAWS)
def every_argument_has_an_effect(cls: Any) -> None:
    """Some example does something else with the value that another example has."""
    excepted = set()
    for base in cls.__mro__:
        excepted |= WITHOUT_EFFECT_HERE.get(base.__name__, set())
    found = configs(cls)
    known: dict[str, list[np.ndarray | None]] = {}

    def does(config: dict[str, Any]) -> list[np.ndarray | None]:
        """Its behaviour, found once: a changed example is often another example."""
        text = json.dumps(config, sort_keys=True)
        if text not in known:
            known[text] = behaviour(cls, config)
        return known[text]

    for name in own_arguments(cls):
        if name in excepted:
            continue
        assert any(
            differs(does({**one, name: other[name]}), does(one))
            for one, other in itertools.product(found, found)
            if varied(one[name]) != varied(other[name])
        ), f"{cls.__name__} does the same with any `{name}`"


def behaviour(cls: Any, config: dict[str, Any]) -> list[np.ndarray | None]:
    """All that an object does, from the same random state; nothing if it is refused."""
    keras.utils.set_random_seed(0)
    try:
        made = cls.from_config(json.loads(json.dumps(config)))
        if isinstance(made, Penalty):
            return of_penalty(made)
        if isinstance(made, Loss):
            return of_loss(made)
        if isinstance(made, keras.layers.Layer):
            return of_layer(made)
        if isinstance(made, Metric):
            return [np.asarray(metrics.result(made, metrics.data(made)))]
        return [np.asarray(strengths.history_of(strengths.model_of(made), 8))]
    except ValueError:  # the value does not go with the other arguments
        return []


def differs(
    one: Sequence[np.ndarray | None], other: Sequence[np.ndarray | None]
) -> bool:
    """Whether two objects do something else where both do anything."""
    pairs = [
        (x, y)
        for x, y in zip(one, other, strict=False)
        if x is not None and y is not None
    ]
    return any(
        x.shape != y.shape
        or not np.allclose(x, y, rtol=1e-4, atol=1e-6, equal_nan=True)
        for x, y in pairs
    )


def of_penalty(p: Penalty) -> list[np.ndarray | None]:
    """On an input of its own, and on a square, which most penalties take."""
    found: list[np.ndarray | None] = []
    for x in [*generic(p)[-1:], inside(p, SQUARE)]:
        for of in (value, lambda p, x: prox(p, x, 0.5) if p.has_prox else None):
            try:
                done = of(p, x)
            except ValueError:  # not of this shape
                done = None
            found.append(None if done is None else np.asarray(done))
    return found


def of_loss(loss: Loss) -> list[np.ndarray | None]:
    """Of a batch that is large enough to have ties."""
    y_true, y_pred = loss.example_data(np.random.default_rng(0), 12)
    return [losses.samples(loss, y_true, y_pred), losses.slope(loss, y_true, y_pred)]


def of_layer(layer: Any) -> list[np.ndarray | None]:
    layer.build(layers.X.shape)
    found: list[np.ndarray | None] = []
    for training, x in ((False, layers.X), (True, layers.X), (True, 1.0 - layers.X)):
        outputs = layers.called(layer, x, training=training)
        found += [array(outputs), np.asarray(layers.total(layer))]
    found.append(np.asarray(len(layer.metrics)))  # the entries of the logs
    return found + [array(weight) for weight in layer.weights]
