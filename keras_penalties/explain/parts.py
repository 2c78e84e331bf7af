"""Each part of an objective: its factor, its formula, and what the letters mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_penalties import checks, compat, config, docstrings
from keras_penalties.compat.losses import CompiledLoss
from keras_penalties.explain import latex
from keras_penalties.hosting.targets import DerivativeTarget, LossTarget
from keras_penalties.penalties.base import Penalty
from keras_penalties.terms import TermInfo

_OF_KERAS = {
    keras.regularizers.L1: "l1·Σ|x|",
    keras.regularizers.L2: "l2·Σx²",
    keras.regularizers.L1L2: "l1·Σ|x| + l2·Σx²",
    keras.regularizers.OrthogonalRegularizer: "factor·mean_{i < j} |cos(xᵢ, xⱼ)|",
}
"""The formulas of Keras' own regularizers."""

_REDUCTIONS = {
    "sum": "sum",
    "mean": "mean",
    "sum_over_batch_size": "mean",
    "mean_with_sample_weight": "weighted_mean",
}


@dataclass(frozen=True)
class Part:
    """One summand of an objective, `factor · formula`."""

    name: str
    """Its name in the logs, or the loss's name."""
    formula: str
    factor: float = 1.0
    per_sample: bool = False
    """Whether it is divided by n, the number of samples."""
    reduction: str = ""
    """How the values of a loss become one: `"mean"` or `"sum"`."""
    where: tuple[tuple[str, str], ...] = ()
    """What the letters of the formula are."""
    constant: float = 0.0
    """What is added to the product."""
    constraint: bool = False
    """Whether the formula is a condition, and no summand."""
    known: bool = True
    """Whether the formula says how the value is computed."""
    note: str = ""

    def cells(self) -> tuple[str, str, str]:
        """The product, what its letters are, and the name: a row of a table."""
        meanings = ", ".join(f"{letter} = {meaning}" for letter, meaning in self.where)
        name = f"{self.name} ({self.note})" if self.note else self.name
        return self._product(), meanings, name

    def _product(self) -> str:
        if self.constraint:
            return f"subject to {self.formula}"
        body = f"{self.reduction}[{self.formula}]" if self.reduction else self.formula
        divided = "/n" if self.per_sample else ""
        if self.factor != 1.0 or divided:
            body = f"{self.factor:.7g}{divided} · {_bracketed(body)}"
        return f"{body} + {self.constant:.7g}" if self.constant else body

    def latex(self) -> str:
        """The product in LaTeX, its letters' meanings as an index."""
        meanings = r",\ ".join(f"{latex.latex(a)} = {_text(b)}" for a, b in self.where)
        index = f"_{{{meanings}}}" if meanings else ""
        body = rf"\left[{latex.latex(self.formula)}\right]{index}"
        if self.reduction:
            body = rf"{latex.word(self.reduction)}{body}"
        if self.constraint:
            return rf"{latex.word('subject to')}\ {body}"
        if self.factor != 1.0 or self.per_sample:
            factor = latex.number(self.factor)
            factor = rf"\frac{{{factor}}}{{n}}" if self.per_sample else factor
            body = rf"{factor} \cdot {body}"
        return rf"{body} + {latex.number(self.constant)}" if self.constant else body


def _bracketed(formula: str) -> str:
    """The formula, in brackets where it is a sum of several."""
    depth = 0
    for before, char in zip(f" {formula}", formula, strict=False):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(char, 0)
        if depth == 0 and char in "+−-" and before == " ":
            return f"[{formula}]"
    return formula


def _text(meaning: str) -> str:
    try:
        return latex.number(float(meaning))
    except ValueError:
        return latex.word(meaning)


def term_part(term: TermInfo) -> Part:
    """A term of `terms(model)`."""
    target = None if term.term is None else term.term.target
    if isinstance(target, LossTarget):
        return _added_loss(term)
    where = {"x": term.target}
    if isinstance(target, DerivativeTarget):
        where["x"] = f"the derivative that {type(term.owner).__name__} takes of "
        where["x"] += term.owner.layer.name
    if isinstance(term.penalty, Penalty):
        found = docstrings.formula(type(term.penalty))
        values = _values(term.penalty, config.arguments(type(term.penalty)))
        values.pop("strength", None)
        statistic = term.penalty.statistic is not None
        constraint = term.penalty.indicator
    else:
        found, values = _foreign(term.penalty)
        statistic = constraint = False
    known = bool(found)
    return Part(
        name=term.name,
        formula=found or f"{_name(term.penalty)}(x)",
        factor=1.0 if term.evaluated is None else term.evaluated,
        per_sample=term.weight is None
        and not statistic
        and (term.host == "layer" or compat.slot_divides()),
        where=_meanings({**where, **values}),
        constant=_constant(term),
        constraint=constraint,
        known=known,
        note=_note(term),
    )


def _foreign(regularizer: Any) -> tuple[str, dict[str, Any]]:
    """The formula and the arguments of a regularizer that is not of this package."""
    found = _OF_KERAS.get(type(regularizer), "")
    values = regularizer.get_config() if found else {}
    return found, values


def _added_loss(term: TermInfo) -> Part:
    """The loss of an `AddLoss`."""
    loss = CompiledLoss(term.penalty, term.evaluated, "")
    part = loss_part(loss)
    mean = isinstance(term.penalty, keras.losses.Loss)
    return Part(
        name=term.name,
        formula=part.formula,
        factor=part.factor,
        reduction=part.reduction if mean else "mean",
        where=part.where,
        constant=_constant(term),
        known=part.known,
        note=_note(term),
    )


def loss_part(compiled: CompiledLoss) -> Part:
    """A loss that `compile` was given."""
    loss = compiled.loss
    function = compat.loss_function(loss)
    ours = docstrings.formula(type(loss)) if function is loss else ""
    found = ours or docstrings.formula(type(loss)) or docstrings.formula(function)
    where: dict[str, Any] = {"y_pred": compiled.output} if compiled.output else {}
    if isinstance(loss, config.FromSignature) or function is loss:
        names = set(config.arguments(type(loss))) - {"name", "reduction", "dtype"}
        where |= _values(loss, sorted(names & set(dir(loss))))
    where |= compat.loss_arguments(loss)
    name = compat.loss_name(loss)
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    return Part(
        name=name,
        formula=found or f"{name}(y_true, y_pred)",
        factor=1.0 if compiled.weight is None else float(compiled.weight),
        reduction=_REDUCTIONS.get(reduction, ""),
        where=_meanings(where),
        known=bool(found) or _of_keras(function),
    )


def decay_part(rate: float, where: str, note: str) -> Part:
    """The weight decay of an optimizer."""
    return Part("weight_decay", "½·Σx²", rate, where=(("x", where),), note=note)


def _of_keras(obj: Any) -> bool:
    return str(getattr(obj, "__module__", type(obj).__module__)).startswith("keras.")


def _name(obj: Any) -> str:
    return str(getattr(obj, "__name__", type(obj).__name__))


def _values(obj: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(obj, name) for name in names}


def _meanings(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The values as text, without the options that are not used."""
    return tuple((n, _shown(value)) for n, value in values.items() if value is not None)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.7g}"
    return checks.shown(value)


def _constant(term: TermInfo) -> float:
    """What the strength adds of itself, beside the product, as a learned one does."""
    if term.term is None or not term.evaluated:
        return 0.0
    strength = ops.convert_to_tensor(term.evaluated, "float32")
    value = 1.0 / ops.maximum(strength, ops.ones_like(strength))
    added = term.term.strength.added(strength, value) - strength * value
    return float(ops.convert_to_numpy(added))


def _note(term: TermInfo) -> str:
    if term.term is None or term.term.strength.settable:
        return ""
    return f"strength by {type(term.term.given_strength).__name__}"
