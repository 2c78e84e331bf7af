"""Which terms a description has, by host, with the names that the logs must have."""

from __future__ import annotations

from dataclasses import dataclass

from campaign.describe import Layer, Model, Penalty, Strength

DERIVATIVES = ("input_gradient", "gradient_penalty", "contractive")
OWN_HOSTS = (*DERIVATIVES, "activity_penalty", "add_loss")
"""The layers that are hosts themselves."""


@dataclass(frozen=True)
class Term:
    """Strength × penalty of a target. `entry` is its entry of the logs, if any."""

    key: str
    host: str
    entry: str | None
    penalty: Penalty
    weight: str | None
    """The weight that is penalised, as `layer/name`; None for an output."""

    @property
    def strength(self) -> Strength:
        """The penalty's."""
        return self.penalty.strength


def by_layer(layer: Layer) -> list[Term]:
    """The terms of `Penalized` around a layer, or of a layer that is a host."""
    name, found = layer.name, []
    for weight, penalties in layer.weights.items():
        for p in penalties:
            own = f"{name}_{weight.replace('/', '_')}_{p.kind}"
            entries = {"weight": own, "rule": f"{name}_{p.kind}", False: None}
            found.append((entries[layer.log], p, f"{name}/{weight}"))
    for p in layer.outputs:
        found.append((None if not layer.log else f"{name}_output_{p.kind}", p, None))
    host = f"{name}_{layer.kind}" if layer.kind in DERIVATIVES else name
    for p in layer.penalties:
        alone = layer.kind in DERIVATIVES and len(layer.penalties) == 1
        named = host if alone or layer.kind == "add_loss" else f"{host}_{p.kind}"
        found.append((named, p, None))
    return [
        Term(f"{name}/{i}", name, entry, p, weight)
        for i, (entry, p, weight) in enumerate(found)
    ]


RULES = "model_penalty"


def by_rules(model: Model) -> list[Term]:
    """The terms of `kp.penalize`."""
    found: list[Term] = []
    for rule in model.rules:
        word = rule.layer if rule.weight is None else f"{rule.layer}_{rule.weight}"
        word = f"{word}_output" if rule.weight is None else word.replace("/", "_")
        weight = None if rule.weight is None else f"{rule.layer}/{rule.weight}"
        for p in rule.penalties:
            key = f"{RULES}/{len(found)}"
            found.append(Term(key, rule.layer, f"{word}_{p.kind}", p, weight))
    return found


def by_optimizer(model: Model) -> list[Term]:
    """The terms of `Proximal` and `Penalizing`."""
    return [
        Term(f"optimizer/{address}/{i}", "optimizer", None, p, address)
        for address, penalties in model.optimizer.penalties.items()
        for i, p in enumerate(penalties)
    ]
