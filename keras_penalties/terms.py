"""The one view of a model's objective: every term, whichever host holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import snake_case


@dataclass(frozen=True)
class TermInfo:
    """One term as it stands: what is penalised, by what, how strongly, by whom."""

    name: str
    """Its name in the logs, where its host logs it."""
    penalty: Any
    """The penalty, the `keras.regularizers.Regularizer` of a Keras slot, or the loss of
    an `AddLoss`."""
    strength: float | None
    """The multiplier at this step; None for a regularizer of another package."""
    target: str
    """The path of the weight, or of the layer whose output it is."""
    host: str
    """Who applies it: `"layer"` or `"slot"`."""
    acts: bool
    """Whether it can change a weight: a term on a frozen weight can't."""


class Terms(tuple[TermInfo, ...]):
    """The terms of a model, which print as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        head = ("term", "strength", "penalty", "target", "host", "acts")
        rows = [head, *(_cells(term) for term in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = (
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)


def _cells(term: TermInfo) -> tuple[str, ...]:
    strength = "-" if term.strength is None else f"{term.strength:.4g}"
    acts = "yes" if term.acts else "no: frozen"
    kind = getattr(term.penalty, "__name__", type(term.penalty).__name__)
    return term.name, strength, kind, term.target, term.host, acts


def terms(model: keras.Model) -> Terms:
    """Every term of a model's objective beside the loss that `compile` was given.

    Args:
        model: Any built Keras model, or a layer.

    Returns:
        A tuple of `TermInfo`, in the order of the layers, that prints as a table.

    Raises:
        ValueError: if `model` is no layer or is not built yet.

    Example:
        >>> import keras, keras_penalties as kp
        >>> model = kp.models.SparseAutoencoder()
        >>> model.build((None, 4))
        >>> print(kp.terms(model))
        term               strength  penalty     target          host   acts
        encoder_kernel_l2  5e-05     L2          encoder/kernel  layer  yes
        code_kl_sparsity   3         KLSparsity  code            layer  yes
        decoder_kernel_l2  5e-05     L2          decoder/kernel  layer  yes
    """
    checks.instance("model", model, keras.layers.Layer)
    if not model.built:
        checks.refuse("model", "a built model: call it, fit it or `build` it", model)
    found = [
        term
        for layer in compat.flat_layers(model)
        for host in (_hosted_by_layer, _in_slots)
        for term in host(layer)
    ]
    return Terms(found)


def _hosted_by_layer(layer: Any) -> Iterator[TermInfo]:
    if not isinstance(layer, PenaltyLayer):
        return
    for term in layer.terms:
        yield TermInfo(
            name=term.name,
            penalty=getattr(term.penalty, "loss", term.penalty),
            strength=float(ops.convert_to_numpy(layer.strength(term))),
            target=layer.target_path(term),
            host="layer",
            acts=layer.acts(term),
        )


def _in_slots(layer: Any) -> Iterator[TermInfo]:
    for variable in compat.own_weights(layer):
        if variable.regularizer is not None:
            path = f"{layer.name}/{variable.name}"
            acts = bool(variable.trainable)
            yield from _slot_terms(variable.regularizer, path, acts)
    if layer.activity_regularizer is not None:
        yield from _slot_terms(layer.activity_regularizer, layer.name, True)


def _slot_terms(regularizer: Any, target: str, acts: bool) -> Iterator[TermInfo]:
    ours = isinstance(regularizer, Penalty)
    for part in regularizer.parts() if ours else [regularizer]:
        name = part.name if ours else snake_case(type(part).__name__)
        yield TermInfo(
            name=f"{target.replace('/', '_')}_{name}",
            penalty=part,
            strength=part.strength if ours else None,
            target=target,
            host="slot",
            acts=acts,
        )
