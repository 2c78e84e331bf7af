"""Losses that a layer adds: each counted exactly once in a forward pass.

- Private: the stateless scope in which Keras on JAX runs a model, and what Keras notes
  of `add_loss` (`_losses`, `_loss_ids`). Publicly there is `add_loss` alone, which
  tells neither whether a forward pass is a new one nor what became of the losses.
- Needless when `test_a_shared_layers_losses_are_dropped_on_jax` of
  `tests/test_needless.py` fails, except for `LossLedger.is_open` and
  `in_stateless_scope`, which stay needed as long as Keras has no public name for them.
"""

from __future__ import annotations

from typing import Any

from keras_penalties.compat.private import part_of, private

_FEATURE = "Layers that add penalties"
get_stateless_scope = private(
    _FEATURE, "keras.src.backend.common.stateless_scope:get_stateless_scope"
)


def in_stateless_scope() -> bool:
    """Whether Keras runs a layer as a pure function, as it does on JAX."""
    return get_stateless_scope() is not None


class LossLedger:
    """A layer's own record of the losses that it added in the present forward pass.

    Every version of Keras needs `is_open`: a weight's penalty counts in the first call
    of a shared layer only. Keras before 3.16 has two more faults on JAX. Keras finds a
    layer's losses by `id()`, also of tensors that are gone, so a new tensor can take an
    old id and be counted by the wrong layer: the ledger keeps the tensors alive as long
    as their ids are registered. And each call of a layer drops what its earlier calls
    in the same pass added, or up to Keras 3.13 sometimes their ids alone: the ledger
    puts back what was dropped. In Keras 3.16 the ledger finds nothing to put back.
    """

    def __init__(self) -> None:
        self._scope: Any = None
        self._losses: list[Any] = []

    def is_open(self, layer: Any) -> bool:
        """Whether the layer has added a loss in this forward pass already."""
        scope = get_stateless_scope()
        if scope is not None:
            return scope is self._scope
        registered = part_of(layer, "_losses", _FEATURE)
        return any(x is y for x in self._losses for y in registered)

    def add(self, layer: Any, losses: list[Any]) -> None:
        """`layer.add_loss` for each, counted exactly once in this forward pass."""
        if not self.is_open(layer):
            self._scope, self._losses = get_stateless_scope(), []
        if self._scope is not None:
            held = {id(x) for x in self._scope.losses}
            for earlier in self._losses:
                if id(earlier) in held:
                    part_of(layer, "_loss_ids", _FEATURE).add(id(earlier))
                else:
                    layer.add_loss(earlier)
        for loss in losses:
            layer.add_loss(loss)
            self._losses.append(loss)
