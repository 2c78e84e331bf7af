"""A saved model's objective: its terms, its data losses and its optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_penalties_cli.catalogue import snake_case
from keras_penalties_cli.inspection.archive import SavedModel
from keras_penalties_cli.inspection.hosts import (
    OPTIMIZERS,
    WRAPPERS,
    Term,
    hosted,
    in_optimizer,
    in_slots,
    lacks_arrays,
    with_strengths,
)
from keras_penalties_cli.inspection.models import layers_inside
from keras_penalties_cli.inspection.saved import (
    Json,
    Saved,
    listed,
    mapping,
    number,
    saved,
    shown,
    word,
)
from keras_penalties_cli.inspection.weights import Stored, stored

_NO_PARTS = {"build_config", "compile_config", "inbound_nodes", "dtype"}
_NOTHING = Stored({})


@dataclass(frozen=True)
class DataLoss:
    """A loss of `compile`, and its weight in the sum."""

    output: str
    loss: Json
    weight: float | None


@dataclass(frozen=True)
class Found:
    """A layer or a model in a config."""

    layer: Saved
    path: str
    """Where its weights lie in the file, as far as the config says."""
    frozen: bool
    address: str = ""
    """The layers' names from the model's own layers down."""


def layers(node: Saved, path: str = "", frozen: bool = False) -> Iterator[Found]:
    """Every object of a model's config, from the outside in, each once.

    Not only layers: a class of somebody else may hold a layer under any argument.
    """
    seen: set[int] = set()

    def visit(found: Saved, path: str, frozen: bool, above: str) -> Iterator[Found]:
        shared = found.node.get("shared_object_id")
        if isinstance(shared, int):
            if shared in seen:
                return
            seen.add(shared)
        frozen = frozen or found.config.get("trainable") is False
        frozen = frozen or found.is_ours("Frozen")
        name = "" if found is node else found.own_name
        address = f"{above}/{name}" if above and name else above or name
        yield Found(found, path, frozen, address)
        inside = layers_inside(found) or found.config
        for name, value in inside.items():
            if name not in _NO_PARTS:
                for inner, its_path in _with_paths(word(name), value, path):
                    yield from visit(inner, its_path, frozen, address)

    yield from visit(node, path, frozen, "")


def _with_paths(name: str, value: Json, path: str) -> Iterator[tuple[Saved, str]]:
    """The objects in one argument, and where Keras puts their weights.

    In a list Keras names each by its class, with a number from the second one on.
    """
    start = f"{path}/{name}" if path else name
    if (found := saved(value)) is not None:
        yield found, start
        return
    names: Counter[str] = Counter()
    values = value.values() if isinstance(value, dict) else listed(value)
    for item in values:
        if (found := saved(item)) is not None:
            if ".ops." in word(found.node.get("module")):
                continue  # an operation between layers
            kind = snake_case(found.name)
            count = names[kind]
            names[kind] += 1
            yield found, f"{start}/{kind}_{count}" if count else f"{start}/{kind}"
        elif isinstance(item, dict | list):
            yield from _with_paths(name, item, path)


def terms_and_faults(model: SavedModel) -> tuple[list[Term], list[str]]:
    """Every term of the model, and what could not be read of them."""
    all_layers = list(layers(Saved(model.config)))
    with_terms = [(found, hosted(found.layer)) for found in all_layers]
    with_terms = [(found, terms) for found, terms in with_terms if terms]
    wrappers = list(_optimizers(model))
    owners = [(found.path, found.layer.own_name) for found, _ in with_terms]
    owners += [(path, word(o.config.get("name"))) for o, path in wrappers]
    weights, faults = _weights(model, owners)
    by_layer = {
        id(found.layer): with_strengths(terms, of)
        for (found, terms), of in zip(with_terms, weights, strict=False)
    }
    faults += [
        f"The arrays that the terms of '{found.layer.own_name}' need: the config "
        "leaves them to the weights, and the weights lack them."
        for (found, terms), of in zip(with_terms, weights, strict=False)
        if model.weights is not None and not faults and lacks_arrays(terms, of)
    ]
    by_address: dict[str, Found] = {}
    for found in all_layers:
        by_address.setdefault(found.address, found)
    terms: list[Term] = []
    for found in all_layers:
        for term in (*by_layer.get(id(found.layer), ()), *in_slots(found.layer)):
            still = term.weight and _is_frozen(found, term.weight, by_address)
            terms.append(replace(term, acts=not still))
    for (optimizer, _), of in zip(wrappers, weights[len(with_terms) :], strict=True):
        if optimizer.is_ours(*OPTIMIZERS):
            terms += in_optimizer(optimizer, of)
    missing = [t.name for t in terms if t.host != "slot" and _is_unknown(t)]
    if missing and not faults and not model.unread:
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        faults.append(
            f"The strengths as they are, of {names}: the weights in the file are not "
            "those that the config asks for, a pattern fits weights of different "
            "strengths, or a model's own code made the layer."
        )
    return terms, faults


def _is_unknown(term: Term) -> bool:
    return term.given is not None and term.now is None and term.step is None


def _weights(
    model: SavedModel, owners: list[tuple[str, str]]
) -> tuple[list[Stored], list[str]]:
    if model.weights is None or not owners:
        return [_NOTHING] * len(owners), []
    found = stored(model.weights, owners)
    if found is None:
        fault = (
            "The strengths as they are: model.weights.h5 is damaged, or is more than "
            "the limits allow."
        )
        return [_NOTHING] * len(owners), [fault]
    return found, []


def _is_frozen(found: Found, weight: str, by_address: Mapping[str, Found]) -> bool:
    """Whether a weight of the layer, or of a layer inside it, is not trained.

    A `ModelPenalty` names weights of the layers beside it.
    """
    if found.layer.is_ours("ModelPenalty"):
        owner, _, last = weight.rpartition("/")
        beside = found.address.rpartition("/")[0]
        owner = f"{beside}/{owner}" if beside else owner
        while owner and owner not in by_address:
            owner = owner.rpartition("/")[0]
        there = by_address.get(owner)
        return there is not None and (there.frozen or _is_adapted(there, last))
    if found.frozen:
        return True
    inner = saved(found.layer.config.get("layer"))
    host = inner if inner is not None and found.layer.is_ours() else found.layer
    *path, last = weight.split("/")
    on_the_way = [
        f for f in layers(host) if f.layer is host or f.layer.own_name in path
    ]
    if any(f.frozen for f in on_the_way):
        return True
    return _is_adapted(on_the_way[-1], last)


def _is_adapted(found: Found, weight: str) -> bool:
    """Whether low-rank adaptation trains two small matrices in the weight's place."""
    adapted = found.layer.config.get("lora_rank") is not None
    return adapted and weight in ("kernel", "embeddings")


def _optimizers(model: SavedModel) -> Iterator[tuple[Saved, str]]:
    """The optimizer and those inside it, and where the innermost numbers lie.

    Of one of this package that is where its inner optimizer's numbers lie.
    """
    found = saved(compiled(model).get("optimizer"))
    path = "optimizer"
    while found is not None:
        inner = "inner" if found.is_ours(*WRAPPERS) else "inner_optimizer"
        path = f"{path}/{inner}"
        within = saved(found.config.get(inner))
        if within is not None:
            # The state lies with the inner optimizer, which the name belongs to.
            named = {**found.config, "name": within.config.get("name")}
            yield Saved({**found.node, "config": named}), path
        found = within


def compiled(model: SavedModel) -> Mapping[str, Json]:
    """What `compile` was given."""
    return mapping(model.config.get("compile_config"))


def data_losses(model: SavedModel) -> list[DataLoss]:
    """The losses that `compile` was given, each with its weight."""
    given = compiled(model)
    return list(_losses(given.get("loss"), given.get("loss_weights"), ""))


def _losses(loss: Json, weights: Json, output: str) -> Iterator[DataLoss]:
    if loss is None:
        return
    if saved(loss) is not None or not isinstance(loss, dict | list):
        yield DataLoss(output, loss, number(weights))
        return
    items: Any = loss.items() if isinstance(loss, dict) else enumerate(loss)
    for place, item in items:
        if isinstance(weights, dict):
            weight = weights.get(place)
        elif isinstance(weights, list) and isinstance(place, int):
            weight = weights[place] if place < len(weights) else None
        else:
            weight = weights
        name = f"{output}/{place}" if output else str(place)
        yield from _losses(item, weight, name[:200])


def optimizers(model: SavedModel) -> list[dict[str, Json]]:
    """The optimizer, then those inside it: each one's class and what it was given."""
    found, chain = saved(compiled(model).get("optimizer")), []
    while found is not None:
        inner = found.config.get("inner") or found.config.get("inner_optimizer")
        without = ("inner", "inner_optimizer", "penalties")
        settings = {
            word(name): shown(value)
            for name, value in found.config.items()
            if value is not None and value is not False and name not in without
        }
        settings.pop("name", None)
        decay = number(found.config.get("weight_decay"))
        chain.append(
            {"class": found.name, "settings": settings, "weight_decay": decay or None}
        )
        found = saved(inner)
    return chain
