"""Which penalties act on a weight already, for another host to look at.

`Proximal` is built from a model's weights alone, and a layer does not know its model's
optimizer. So each layer claims the weights that it penalises.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, MutableMapping, Sequence
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


def twin(variable: Any, penalty: Penalty, layer: Any = None) -> Any:
    """What acts on a weight already and is equal to a penalty except for the strength.

    Looked for in the weight's own slot and in what other layers claim.
    """
    others = [p for p in _claimed(variable, layer) if p.alike(penalty)]
    slot = variable.regularizer
    if isinstance(slot, Penalty):
        others += [p for p in slot.parts() if p.alike(penalty)]
    elif slot is not None and type(slot).__name__ == type(penalty).__name__:
        others.append(slot)  # Keras' own L1 and L2 are ours
    return others[0] if others else None


def _claimed(variable: Any, layer: Any) -> Iterator[Penalty]:
    for owner, penalties in _CLAIMS.get(id(variable), {}).items():
        if owner is not layer:
            yield from penalties
