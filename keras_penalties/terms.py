"""Lists the terms of a model's objective, and changes their strengths."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.hosting.addresses import own_path
from keras_penalties.hosting.cautions import say_void
from keras_penalties.hosting.targets import WeightTarget
from keras_penalties.hosting.term import Term, term_name
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.numerics import widened
from keras_penalties.optimizers.base import PenaltyOptimizer
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import snake_case
from keras_penalties.tables import html_table, text_table


@dataclass(frozen=True)
class TermInfo:
    """One term at present: its target, penalty, strength and host."""

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
    """Who applies it: `"layer"`, `"slot"` or `"optimizer"`."""
    acts: bool
    """Whether it can change a weight: a term on a frozen weight can't."""
    evaluated: float | None = None
    """The strength in an evaluation, which differs for `Lazy` only."""
    weight: Any = field(default=None, repr=False, compare=False)
    """The weight itself, where one is penalised."""
    owner: Any = field(default=None, repr=False, compare=False)
    """The layer, or the optimizer, that applies it."""
    term: Term | None = field(default=None, repr=False, compare=False)
    """What a layer or the optimizer hosts; None in a Keras slot."""
    held: Any = field(default=None, repr=False, compare=False)
    """The penalty with the arrays that its host keeps for it."""

    @property
    def in_loss(self) -> bool:
        """Whether `loss` has it: what an optimizer applies is beside the loss."""
        return self.acts and self.host != "optimizer"

    def present(self) -> float | None:
        """What the term adds on the weight as it is; None for other targets."""
        if self.weight is None:
            return None
        x = widened(self.weight)
        if self.evaluated is None:
            value = self.penalty(x)
        else:
            penalty = self.penalty if self.held is None else self.held
            value = self.evaluated * penalty.value(x)
        return float(ops.convert_to_numpy(value))


class Terms(tuple[TermInfo, ...]):
    """The terms of a model, which print as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return html_table(self._rows())

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("term", "strength", "penalty", "target", "host", "acts")
        return [head, *(_cells(term) for term in self)]


def _cells(term: TermInfo) -> tuple[str, ...]:
    strength = "-" if term.strength is None else f"{term.strength:.4g}"
    acts = "yes" if term.acts else "no: frozen"
    kind = _kind(term.penalty)
    return term.name, strength, kind, term.target, term.host, acts


def _kind(penalty: Any) -> str:
    return str(getattr(penalty, "__name__", type(penalty).__name__))


def terms(model: keras.Model) -> Terms:
    """Every term of a model's objective beside the loss that `compile` was given.

    Args:
        model: Any built Keras model, or a layer.

    Returns:
        A tuple of `TermInfo`, in the order of the layers, then those of the optimizer
        that the model is compiled with. It prints as a table.

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
    compat.sync_state(model)
    found = [
        term
        for layer in compat.flat_layers(model)
        for host in (_in_layer, _in_slots)
        for term in host(layer)
    ]
    return Terms([*found, *_in_optimizer(model)])


def set_strength(model: keras.Model, term: str, value: float) -> None:
    """Change a constant strength, between fits or in a callback, with no recompile.

    The new strength acts from the next step on and is saved with the model's weights.
    The attribute `strength` of the penalty, and so its config, does not change.

    Args:
        model: The model that is trained: in a callback `self.model`.
        term: Its name, as `terms(model)` gives it.
        value: The new strength, 0 or more.

    Raises:
        ValueError: if no term or several have that name; if the term stands in a Keras
            slot, where a strength is fixed when the step is traced; or if its strength
            is a schedule or a target, which moves by itself.

    Example:
        >>> import keras, keras_penalties as kp
        >>> model = kp.models.SparseAutoencoder()
        >>> model.build((None, 4))
        >>> kp.set_strength(model, "code_kl_sparsity", 0.5)
        >>> [t.strength for t in kp.terms(model) if t.name == "code_kl_sparsity"]
        [0.5]
    """
    value = checks.non_negative("value", value)
    found = terms(model)
    names = [t.name for t in found]
    if names.count(term) != 1:
        near = checks.near(term, names)
        checks.refuse("term", f"the name of one of `terms(model)`.{near}", term)
    info = found[names.index(term)]
    if info.term is not None:
        _check_constant(info.term)
        info.owner.state.set(info.term, value)
        return
    checks.refuse(
        "term",
        "a term of a layer or an optimizer: in a Keras slot a strength is fixed when "
        "the step is traced. Move the penalty to `keras_penalties.layers.Penalized` or "
        "`ActivityPenalty`",
        term,
    )


def _check_constant(term: Term) -> None:
    if not term.strength.settable:
        checks.refuse(
            "term",
            f"a term of constant strength, and that of '{term.name}' moves by itself. "
            "Build the model with a number in its place",
            term.given_strength,
        )


def penalty_optimizers(model: Any) -> list[PenaltyOptimizer]:
    """The model's optimizers with terms, also inside others, their terms known."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return []
    inside = compat.flat_optimizers(optimizer)
    found = [o for o in inside if isinstance(o, PenaltyOptimizer)]
    if found and not optimizer.built:
        optimizer.build(model.trainable_variables)
    return found


def name_in(model: Any, term: Term) -> str:
    """The name of an optimizer's term, without the model's own name."""
    path = term.target.path("")
    inside = own_path(model, path) != path
    return term.name.removeprefix(f"{model.name}_") if inside else term.name


def _in_optimizer(model: Any) -> Iterator[TermInfo]:
    weights = {v.path: v for v in model.variables}
    hosts = penalty_optimizers(model)
    if hosts and compat.loses_optimizer(model):
        _warn_of_loss(model, hosts[0])
    for optimizer in hosts:
        for term in optimizer.terms:
            path = term.target.path("")
            weight = weights.get(path)
            held = None if weight is None else optimizer.anchors.penalty(term, weight)
            yield TermInfo(
                name=name_in(model, term),
                penalty=term.penalty,
                strength=_number(optimizer.present_strength(term)),
                target=own_path(model, path),
                host="optimizer",
                acts=weight is None or bool(weight.trainable),
                evaluated=_evaluated(optimizer, term, optimizer.iterations),
                weight=weight,
                owner=optimizer,
                term=term,
                held=held,
            )


def _number(x: Any) -> float:
    return float(ops.convert_to_numpy(x))


def _warn_of_loss(model: Any, optimizer: PenaltyOptimizer) -> None:
    kind, host = type(model).__name__, type(optimizer).__name__
    warnings.warn(
        f"{kind} has a `compile` of its own and no `compile_from_config`: Keras does "
        f"not compile it when it is loaded, so its {host} and the penalties are lost "
        "then. After loading write `model.compile(optimizer=keras_penalties.optimizers."
        f"{host}(...), ...)` with the same penalties; the optimizer's state starts "
        "anew.",
        stacklevel=4,
    )


def _in_layer(layer: Any) -> Iterator[TermInfo]:
    if not isinstance(layer, PenaltyLayer):
        return
    for term in layer.terms:
        weight = _weight(layer, term)
        if weight is not None and weight.name.startswith("lora_"):
            say_void(layer.target_path(term), getattr(layer, "layer", None))
        yield TermInfo(
            name=term.name,
            penalty=term.penalty,
            strength=_number(layer.present_strength(term)),
            target=layer.target_path(term),
            host="layer",
            acts=layer.acts(term),
            evaluated=_evaluated(layer, term, getattr(layer, "steps", 0)),
            weight=weight,
            owner=layer,
            term=term,
            held=None if weight is None else layer.anchors.penalty(term, weight),
        )


def _evaluated(host: Any, term: Term, step: Any) -> float:
    return _number(host.state.strength(term, step, training=False))


def _weight(layer: Any, term: Term) -> Any:
    if isinstance(term.target, WeightTarget):
        return layer.variable(term.target.address)
    return None


def _in_slots(layer: Any) -> Iterator[TermInfo]:
    for variable in compat.own_weights(layer):
        if variable.regularizer is not None:
            path = f"{layer.name}/{variable.name}"
            yield from _slot_terms(variable.regularizer, path, layer, variable)
    if layer.activity_regularizer is not None:
        yield from _slot_terms(layer.activity_regularizer, layer.name, layer, None)


def _slot_terms(
    regularizer: Any, target: str, layer: Any, weight: Any
) -> Iterator[TermInfo]:
    ours = isinstance(regularizer, Penalty)
    for part in regularizer.parts() if ours else [regularizer]:
        name = part.name if ours else snake_case(_kind(part))
        yield TermInfo(
            name=term_name(target, name),
            penalty=part,
            strength=part.strength if ours else None,
            target=target,
            host="slot",
            acts=weight is None or bool(weight.trainable),
            evaluated=part.strength if ours else None,
            weight=weight,
            owner=layer,
        )
