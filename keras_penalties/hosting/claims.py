"""Which penalties act on a weight already, for another host to look at.

`Proximal` is built from a model's weights alone, and a layer does not know its model's
optimizer. So each layer claims the weights that it penalises.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from typing import Any

from keras_penalties.penalties.base import Penalty

_CLAIMS: dict[int, MutableMapping[Any, list[Penalty]]] = {}
"""The penalties by layer, by the `id` of the variable. A Keras variable compares entry
by entry, so that it can't be a key itself; its entry goes when it does."""


def claim(variable: Any, layer: Any, penalties: Sequence[Penalty]) -> None:
    """Say that a layer puts these penalties, and no others, on a weight."""
    if id(variable) not in _CLAIMS:
        _CLAIMS[id(variable)] = weakref.WeakKeyDictionary()
        weakref.finalize(variable, _CLAIMS.pop, id(variable), None)
    _CLAIMS[id(variable)][layer] = list(penalties)


def release(layer: Any) -> None:
    """Forget what a layer claims: it has been taken out of its model."""
    for penalties in _CLAIMS.values():
        penalties.pop(layer, None)


def twin(
    variable: Any,
    penalty: Penalty,
    layer: Any = None,
    within: Collection[Any] | None = None,
) -> Any:
    """What acts on a weight already and is equal to a penalty except for the strength.

    Looked for in the weight's own slot and in what other layers claim: all, or those of
    a model. A weight may be in several models, each with penalties of its own.
    """
    others = [
        p
        for owner, p in _claimed(variable)
        if owner is not layer and (within is None or owner in within)
        if p.alike(penalty)
    ]
    slot = variable.regularizer
    if isinstance(slot, Penalty):
        others += [p for p in slot.parts() if p.alike(penalty)]
    elif slot is not None and type(slot).__name__ == type(penalty).__name__:
        others.append(slot)  # Keras' own L1 and L2 are ours
    return others[0] if others else None


def _claimed(variable: Any) -> Iterator[tuple[Any, Penalty]]:
    for owner, penalties in _CLAIMS.get(id(variable), {}).items():
        for penalty in penalties:
            yield owner, penalty
