"""Which terms an object of a config hosts, for each class of this package that can."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from keras_penalties_cli.catalogue import snake_case
from keras_penalties_cli.inspection.saved import (
    Json,
    Saved,
    is_array,
    listed,
    mapping,
    number,
    saved,
    word,
)
from keras_penalties_cli.inspection.weights import Stored


@dataclass(frozen=True)
class Term:
    """One term of the objective, as far as the file says."""

    name: str
    host: str
    """`layer`, `slot` or `optimizer`."""
    penalty: Json
    target: str
    given: Json = None
    """The strength in the config."""
    weight: str = ""
    """Of a weight's term, the weight's address in the layer; else empty."""
    trained: int = 0
    """How many weights that the optimizer trains the host has, beside a `Learned`."""
    acts: bool = True
    now: float | None = None
    """The strength in the weights."""
    step: int | None = None

    @property
    def strength(self) -> str:
        """What is known of the strength, in words."""
        built, kind = number(self.given), saved(self.given)
        if built is not None:
            if self.host == "slot":
                return f"{built:.4g}"
            if self.now is None:
                return f"built with {built:.4g}"
            other = f", built with {built:.4g}" if _differs(self, self.now) else ""
            return f"{self.now:.4g}{other}"
        if kind is None:
            return "-"
        if kind.is_ours("Target", "Learned"):
            known = "not read" if self.now is None else f"{self.now:.4g}"
            return f"{known} ({kind.name})"
        step = "not read" if self.step is None else f"{self.step:,}"
        return f"{kind.name}, step {step}"


def _differs(term: Term, now: float) -> bool:
    """Whether a constant strength is not any more what it was, in float32."""
    built = number(term.given)
    return built is not None and not abs(now - built) <= 1e-6 * abs(built)


def parts(penalty: Json) -> Iterator[Json]:
    """The penalties that one is the sum of: itself, unless it is a `Sum`."""
    found = saved(penalty)
    if found is not None and found.is_ours("Sum"):
        for part in listed(found.config.get("penalties")):
            yield from parts(part)
    else:
        yield penalty


def _name(path: str, penalty: Json) -> str:
    found = saved(penalty)
    kind = snake_case(found.name) if found else word(penalty) or "unknown"
    return f"{path}_{kind}".replace("/", "_")


def _strength(penalty: Json) -> Json:
    found = saved(penalty)
    return found.config.get("strength") if found else None


def terms_of(
    penalty: Json, path: str, target: str, host: str = "layer", weight: str = ""
) -> list[Term]:
    """A term for each part of a penalty, named by the path."""
    return [
        Term(_name(path, part), host, part, target, _strength(part), weight)
        for part in parts(penalty)
    ]


def _inner(layer: Saved) -> str:
    found = saved(layer.config.get("layer"))
    return found.own_name if found else ""


def _activity(layer: Saved) -> list[Term]:
    return terms_of(layer.config.get("penalty"), layer.own_name, layer.own_name)


def _penalized(layer: Saved) -> list[Term]:
    inner, found = _inner(layer), []
    for address, penalty in mapping(layer.config.get("weights")).items():
        path = f"{inner}/{word(address)}"
        found += terms_of(penalty, path, path, weight=word(address))
    if (penalty := layer.config.get("outputs")) is not None:
        found += terms_of(penalty, f"{inner}/output", inner)
    return found


def _model_penalty(layer: Saved) -> list[Term]:
    found = []
    for rule in map(mapping, listed(layer.config.get("rules"))):
        penalty = rule.get("penalty")
        for address in map(word, listed(rule.get("weights"))):
            found += terms_of(penalty, address, address, weight=address)
        for address in map(word, listed(rule.get("outputs"))):
            found += terms_of(penalty, f"{address}/output", address)
    return found


def _added_loss(layer: Saved) -> list[Term]:
    loss, strength = layer.config.get("loss"), layer.config.get("strength")
    return [Term(layer.own_name, "layer", loss, layer.own_name, strength)]


def _dead_units(layer: Saved) -> list[Term]:
    penalty = {"class_name": layer.name, "config": {}}
    strength = layer.config.get("strength")
    return [Term(layer.own_name, "layer", penalty, layer.own_name, strength)]


def _jump_relu(layer: Saved) -> list[Term]:
    if (strength := layer.config.get("strength")) is None:
        return []
    kind = "l0" if layer.config.get("smooth") is None else "tanh"
    name, penalty = f"{layer.own_name}_{kind}", {"class_name": kind, "config": {}}
    return [Term(name, "layer", penalty, layer.own_name, strength, trained=1)]


def _of_derivative(layer: Saved) -> list[Term]:
    """Of a given penalty, or of the one that the class has."""
    target = f"{_inner(layer)}/inputs"
    if "penalty" in layer.config:
        found = terms_of(layer.config["penalty"], layer.own_name, target)
    else:
        hidden = {"name", "trainable", "dtype", "layer", "seed"}
        kept = {k: v for k, v in layer.config.items() if k not in hidden}
        penalty = {"class_name": layer.name, "config": kept}
        found = [Term("", "layer", penalty, target, kept.get("strength"))]
    if len(found) == 1:  # the layer's name says which derivative it is
        return [replace(found[0], name=layer.own_name)]
    return found


HOSTS: Mapping[str, Callable[[Saved], list[Term]]] = {
    "ActivityPenalty": _activity,
    "Penalized": _penalized,
    "ModelPenalty": _model_penalty,
    "AddLoss": _added_loss,
    "AuxK": _dead_units,
    "JumpReLU": _jump_relu,
    "Contractive": _of_derivative,
    "GradientPenalty": _of_derivative,
    "HessianTrace": _of_derivative,
    "InputGradient": _of_derivative,
    "VirtualAdversarial": _of_derivative,
}
"""The terms of each layer of this package that has any."""
OPTIMIZERS = ("Proximal", "Penalizing")
"""The optimizers of this package that have terms, by patterns."""
WRAPPERS = (*OPTIMIZERS, "HoldZeros")
"""The optimizers of this package, each of which wraps another."""


def hosted(layer: Saved) -> list[Term]:
    """The terms of a layer of this package; of equal names all but the first numbered.

    Names, order and numbers are those of `keras_penalties.terms`.
    """
    if not layer.is_ours(*HOSTS):
        return []
    found, counts = [], dict[str, int]()
    for term in HOSTS[layer.name](layer):
        count = counts[term.name] = counts.get(term.name, 0) + 1
        name = term.name if count == 1 else f"{term.name}_{count}"
        found.append(replace(term, name=name))
    return found


_WEIGHTS = {
    "recurrent": "recurrent_kernel",
    "depthwise": "depthwise_kernel",
    "pointwise": "pointwise_kernel",
}


def in_slots(layer: Saved) -> Iterator[Term]:
    """The terms of the regularizers in a layer's own slots, also of Keras' own."""
    slots = sorted(layer.config.items(), key=lambda item: item[0][:8] == "activity")
    for argument, regularizer in slots:
        slot, _, kind = argument.rpartition("_")
        if kind != "regularizer" or regularizer is None:
            continue
        weight = "" if slot == "activity" else _WEIGHTS.get(slot, word(slot))
        target = f"{layer.own_name}/{weight}" if weight else layer.own_name
        yield from terms_of(regularizer, target, target, "slot", weight)


def with_strengths(terms: list[Term], weights: Stored) -> list[Term]:
    """A layer's terms with their strengths as they are.

    In order a layer saves what the optimizer trains, the strengths, the sums for the
    logs and the steps. Where the sizes are others, nothing is said.
    """
    kinds = [saved(term.given) for term in terms]
    learned = any(kind and kind.is_ours("Learned") for kind in kinds)
    trained = learned + max((term.trained for term in terms), default=0)
    vector, sums = weights.vector(trained), weights.vector(trained + 1)
    moving = sum(kind is not None for kind in kinds)
    sizes = range(len(terms) + 1, len(terms) + moving + 2)
    if vector is None or len(vector) != len(terms):
        return terms
    if sums is None or len(sums) not in sizes:
        return terms
    step = weights.number(trained + 2)
    logarithm = weights.number(0) if learned else None
    return [
        _with_strength(term, now, step, logarithm)
        for term, now in zip(terms, vector, strict=True)
    ]


def _with_strength(
    term: Term, now: float, step: float | None, logarithm: float | None = None
) -> Term:
    kind = saved(term.given)
    if kind is not None and kind.is_ours("Learned"):
        total = now + (logarithm or 0.0)
        return replace(term, now=math.exp(min(total, 700.0)))
    if kind is not None and not kind.is_ours("Target"):
        whole = step is not None and math.isfinite(step)
        return replace(term, step=int(step) if whole else None)  # type: ignore[arg-type]
    return replace(term, now=now)


def arrays_of(term: Term) -> int:
    """How many arrays the term's host keeps, which the config has not."""
    penalty, stack, count = saved(term.penalty), [term.penalty], 0
    if penalty is not None and penalty.config.get("values") == "start":
        count = 1
    while stack:
        node = stack.pop()
        count += is_array(node)
        if isinstance(node, dict):
            stack.extend(node.values())
    return count


def lacks_arrays(terms: list[Term], weights: Stored) -> bool:
    """Whether a layer's weights are too few for the arrays of its terms."""
    needed = sum(map(arrays_of, terms))
    return needed > 0 and weights.count < needed + 2


def in_optimizer(optimizer: Saved, weights: Stored) -> list[Term]:
    """The terms of an optimizer, one for each part of the penalty on a pattern.

    A pattern is shown, and never matched: an expression that was made to harm takes
    any time.
    """
    found: list[Term] = []
    for pattern, penalty in mapping(optimizer.config.get("penalties")).items():
        found += terms_of(penalty, word(pattern), word(pattern), "optimizer")
    # The strengths come last, but for the arrays.
    arrays = sum(map(arrays_of, found))
    vector = weights.vector(weights.count - 1 - arrays)
    step = weights.number(0)
    if not found or not vector or len(vector) % len(found):
        return found
    several = len(mapping(optimizer.config.get("penalties"))) > 1 or arrays
    if len(vector) > len(found) and several:
        return found  # which weight a strength is of depends on the patterns
    if arrays and any(map(_differs, found, vector)):
        return found  # perhaps an array, if a pattern fits several weights
    columns = [set(vector[n :: len(found)]) for n in range(len(found))]
    return [
        _with_strength(term, column.pop(), step) if len(column) == 1 else term
        for term, column in zip(found, columns, strict=True)
    ]
