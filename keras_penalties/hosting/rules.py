"""Rules that a user gives for a whole model, made concrete: addresses for each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

import keras

from keras_penalties import checks
from keras_penalties import penalties as penalty_names
from keras_penalties.hosting.addresses import check_pattern, fits, unused
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import snake_case

OUTPUTS = "outputs"
"""The word in a rule for what a layer gives out."""

ByAddress: TypeAlias = Mapping[str, Any]
"""Layers or weights by their addresses."""


def concrete(
    rules: Any, weights: ByAddress, layers: ByAddress, taken: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The rules with addresses in place of patterns, classes and functions.

    Args:
        rules: What the user gave.
        weights: All weights that may be penalised.
        layers: All layers.
        taken: The names in the logs that other rules have.

    Yields:
        Dicts with `"name"`, `"penalty"` and `"weights"` or `"outputs"`: the addresses.

    Raises:
        ValueError: if a key fits nothing or is none, or a penalty does not suit.
    """
    if not isinstance(rules, Mapping) or not rules:
        checks.refuse("rules", "a dict of {key: penalty}, not empty", rules)
    names = set(taken)
    for key, value in rules.items():
        several = isinstance(value, Mapping) and "class_name" not in value
        for what, given in (value if several else {None: value}).items():
            penalty = penalty_names.get(given, "rules")
            if what == OUTPUTS:
                found = _distinct(_chosen(key, layers), layers)
            else:
                found = _weights_of(key, what, weights, layers)
                _check_suits(penalty, {a: weights[a] for a in found})
            if not found:
                _refuse_key(key, what, layers if several else weights)
            name = unused("_".join(filter(None, (_word(key), _word(what)))), names)
            names.add(name)
            place = OUTPUTS if what == OUTPUTS else "weights"
            yield {"name": name, "penalty": penalty, place: found}


def _weights_of(
    key: Any, what: Any, weights: ByAddress, layers: ByAddress
) -> list[str]:
    """The addresses of the weights that a key, and a name in its dict, choose."""
    if what is None and not inspect.isclass(key):
        return _distinct(_chosen(key, weights), weights)
    pattern = r"[^/]*kernel|embeddings" if what is None else what
    check_pattern("rules", pattern)
    found = [
        address
        for layer in _chosen(key, layers)
        for address in weights
        if address.startswith(f"{layer}/")
        and fits(pattern, address.removeprefix(f"{layer}/"))
    ]
    return _distinct(found, weights)


def _chosen(key: Any, things: ByAddress) -> list[str]:
    """The addresses of the layers, or of the weights, that a key chooses."""
    chooses: Callable[[str, Any], bool]
    if isinstance(key, str):
        check_pattern("rules", key)
        chooses = lambda address, _: fits(key, address)  # noqa: E731
    elif inspect.isclass(key) and issubclass(key, keras.layers.Layer):
        chooses = lambda _, layer: isinstance(layer, key)  # noqa: E731
    elif callable(key) and not inspect.isclass(key):
        chooses = lambda address, thing: bool(key(address, thing))  # noqa: E731
    else:
        expected = "keys that are patterns, classes of layers, or functions of "
        checks.refuse("rules", f"{expected}(address, weight)", key)
    return [address for address, thing in things.items() if chooses(address, thing)]


def _distinct(addresses: list[str], things: ByAddress) -> list[str]:
    """One address for each thing: what is in several places counts once."""
    first = {id(things[address]): address for address in reversed(addresses)}
    return [a for a in dict.fromkeys(addresses) if first[id(things[a])] == a]


def _check_suits(penalty: Penalty, weights: ByAddress) -> None:
    if any(part.statistic for part in penalty.parts()):
        expected = "for a weight a penalty that is no statistic of a batch"
        checks.refuse("rules", expected, penalty)
    for address, weight in weights.items():
        if len(weight.shape) < penalty.rank:
            checks.refuse(
                "rules",
                f"for '{address}', of shape {tuple(weight.shape)}, a penalty of rank "
                f"{len(weight.shape)} at most",
                penalty,
            )


def _refuse_key(key: Any, what: Any, things: ByAddress) -> None:
    kind = "a weight that training can change" if what is None else "a layer"
    if what not in (None, OUTPUTS):
        kind = f"a layer with a weight '{what}'"
    if inspect.isclass(key) and what is None:
        kind += " and is named kernel or embeddings (else say which: "
        kind += "{'gamma': penalty} in place of the penalty)"
    near = checks.near(key, things) if isinstance(key, str) else ""
    addresses = checks.shortened(str(list(things)))
    checks.refuse("rules", f"keys that fit {kind}. There are {addresses}.{near}", key)


def _word(key: Any) -> str | None:
    """The word for a key in the logs."""
    if key is None:
        return None
    if key == OUTPUTS:
        return "output"
    if not isinstance(key, str):
        name = getattr(key, "__name__", "<lambda>")
        key = "weights" if name == "<lambda>" else snake_case(name)
    return re.sub(r"\W+", "_", key).strip("_") or "weights"
