"""Addresses: layer names from the top down, then a weight's own name.

`block/inner/dense/kernel` says where a weight stands in a model. A `variable.path` does
not: it is made when the layer is built, which may be outside of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from keras_penalties import checks, compat

MAX_PATTERN = 10_000
"""The longest pattern that is read: Python's compiler takes a second for a million."""


def layers_by_address(layers: Iterable[Any]) -> dict[str, Any]:
    """These layers and all layers inside them, by their addresses.

    A layer that stands in several places has several addresses. Of equal addresses, as
    two layers of one name inside a third one have, all but the first end with a number.
    """
    found: dict[str, Any] = {}

    def visit(layer: Any, above: tuple[Any, ...], prefix: str) -> None:
        address = unused(prefix + layer.name, found)
        found[address] = layer
        for inner in compat.inner_layers(layer):
            if not any(inner is outer for outer in (*above, layer)):
                visit(inner, (*above, layer), f"{address}/")

    for layer in layers:
        visit(layer, (), "")
    return found


def own_path(model: Any, path: str) -> str:
    """A weight's path without the model's own name.

    A Sequential puts its name before its weights' paths when a batch builds the model,
    and does not when a file does.
    """
    return path.removeprefix(f"{model.name}/")


def weights_by_name(layer: Any, ever_trained: bool = False) -> dict[str, Any]:
    """The weights that a layer itself holds, by their own names.

    Args:
        layer: The layer.
        ever_trained: Leave out what no training can change, frozen or not: moving
            statistics, quantized kernels.
    """
    found: dict[str, Any] = {}
    weights = compat.own_weights(layer)
    known = {id(w) for w in compat.own_trained_weights(layer)}
    for weight in weights:
        name = unused(weight.name, found)
        found[name] = weight
    return {n: w for n, w in found.items() if not ever_trained or id(w) in known}


def unused(name: str, taken: Any) -> str:
    """The name, or where it is taken the name with a number: `_2`, `_3` and on."""
    count, new = 1, name
    while new in taken:
        count += 1
        new = f"{name}_{count}"
    return new


def check_pattern(argument: str, pattern: Any) -> None:
    """Refuse what is no regular expression, or is none as a part of a longer one."""
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN:
        expected = f"patterns of at most {MAX_PATTERN:,} characters: write several keys"
        checks.refuse(argument, expected, pattern)
    try:
        re.compile(pattern)
        re.compile(_at_the_end(pattern))
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        expected = f"regular expressions for keys, and this is none: {error}"
        checks.refuse(argument, expected, pattern)


def fits(pattern: str, address: str) -> bool:
    """Whether a pattern fits a whole address, or the address's end from a `/` on.

    Example:
        >>> fits("dense/kernel", "block/dense/kernel"), fits("kernel", "lora_kernel")
        (True, False)
    """
    return re.fullmatch(_at_the_end(pattern), address) is not None


def _at_the_end(pattern: str) -> str:
    r"""The pattern after any layers. Its groups keep their numbers, for `\1`."""
    return f"(?:.*/)?(?:{pattern})"
