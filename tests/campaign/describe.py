"""A model as plain data: what is drawn, built, recomputed, saved beside a file.

A description is a tree of frozen dataclasses, of numbers, strings, tuples and dicts
only. Its `repr` can be pasted into a test, and it goes through JSON and back.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


class _Short:
    """What is as by default is not said."""

    def __repr__(self) -> str:
        made = {
            f.name: f.default_factory()
            if f.default_factory is not dataclasses.MISSING
            else f.default
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        given = [
            f"{name}={getattr(self, name)!r}"
            for name, default in made.items()
            if getattr(self, name) != default
        ]
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class Strength(_Short):
    """A multiplier: the kind, and the arguments that the kind takes."""

    kind: str = "constant"
    args: dict[str, Any] = field(default_factory=lambda: {"value": 0.1})


@dataclass(frozen=True, repr=False)
class Penalty(_Short):
    """One penalty. A sum is a tuple of these."""

    kind: str = "l2"
    strength: Strength = Strength()
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Layer(_Short):
    """One layer, which one or more calls use.

    `slots` are Keras' own (`kernel`, `activity`, ...). `weights`, `outputs` and `log`
    are those of `Penalized` around the layer, if there is any of them. `penalties` are
    those of a layer that is a host itself. `inner` is the graph of a nested model.
    """

    kind: str
    name: str
    args: dict[str, Any] = field(default_factory=dict)
    slots: dict[str, Penalty] = field(default_factory=dict)
    weights: dict[str, tuple[Penalty, ...]] = field(default_factory=dict)
    outputs: tuple[Penalty, ...] = ()
    log: str | bool = "weight"
    penalties: tuple[Penalty, ...] = ()
    inner: Graph | None = None
    trainable: bool = True

    @property
    def penalized(self) -> bool:
        """Whether `Penalized` stands around the layer."""
        return bool(self.weights or self.outputs)


@dataclass(frozen=True, repr=False)
class Call(_Short):
    """One call of a layer: the tensors that it takes, and the one that it gives."""

    layer: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, repr=False)
class Input(_Short):
    """One input. `shape` says what it holds: see `SHAPES`."""

    name: str
    shape: str


@dataclass(frozen=True, repr=False)
class Graph(_Short):
    """Layers and the order in which they are called."""

    inputs: tuple[Input, ...]
    layers: tuple[Layer, ...]
    calls: tuple[Call, ...]
    outputs: tuple[str, ...]

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    def everywhere(self) -> list[Layer]:
        """All layers, those of nested models included."""
        found = []
        for layer in self.layers:
            found.append(layer)
            if layer.inner is not None:
                found += layer.inner.everywhere()
        return found


@dataclass(frozen=True, repr=False)
class Loss(_Short):
    """The data loss of one output. `ignore` stands for unknown targets."""

    kind: str = "mse"
    ignore: bool = False
    weight: float = 1.0
    sample_weight: bool = False


@dataclass(frozen=True, repr=False)
class Rule(_Short):
    """One rule of `kp.penalize`: on a layer's weight, or on its outputs."""

    layer: str
    weight: str | None
    penalties: tuple[Penalty, ...]


@dataclass(frozen=True, repr=False)
class Optimizer(_Short):
    """SGD, alone or in `Proximal` or `Penalizing` with penalties by address."""

    kind: str = "sgd"
    rate: float = 0.1
    accumulation: int | None = None
    penalties: dict[str, tuple[Penalty, ...]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Fit(_Short):
    """How `compile` and `fit` are called."""

    samples: int = 4
    batch: int = 4
    epochs: int = 1
    jit: str | bool = "auto"
    eager: bool = False
    steps: int = 1
    policy: str = "float32"
    class_weight: bool = False


@dataclass(frozen=True, repr=False)
class Model(_Short):
    """A whole case: the model, its objective, and how it is trained."""

    graph: Graph
    style: str = "functional"
    losses: tuple[Loss, ...] = (Loss(),)
    rules: tuple[Rule, ...] = ()
    optimizer: Optimizer = Optimizer()
    fit: Fit = Fit()
    seed: int = 0


TIME, WIDTH, SIDE, WORDS, CLASSES = 4, 3, 2, 5, 3
SHAPES: dict[str, tuple[int, ...]] = {
    "flat": (WIDTH,),
    "sequence": (TIME, WIDTH),
    "padded": (TIME, WIDTH),  # zeros at the end of some sequences
    "image": (SIDE, SIDE, WIDTH),
    "tokens": (TIME,),
    "padded_tokens": (TIME,),
    "target": (WIDTH,),  # what an `AddLoss` compares with
    "unknown_target": (WIDTH,),  # with NaN where nothing is known
    "weight": (),
}


def to_json(model: Any) -> str:
    """The description as a text."""
    return json.dumps(dataclasses.asdict(model))


def from_json(text: str) -> Model:
    """The description that `to_json` wrote."""
    return _model(json.loads(text))


def graph_from(data: dict[str, Any]) -> Graph:
    """A graph from what JSON has made of it."""
    return Graph(
        tuple(Input(**x) for x in data["inputs"]),
        tuple(_layer(x) for x in data["layers"]),
        tuple(Call(x["layer"], tuple(x["inputs"]), x["output"]) for x in data["calls"]),
        tuple(data["outputs"]),
    )


def _model(data: dict[str, Any]) -> Model:
    optimizer = dict(data["optimizer"])
    optimizer["penalties"] = {
        k: _penalties(v) for k, v in optimizer["penalties"].items()
    }
    return Model(
        graph_from(data["graph"]),
        data["style"],
        tuple(Loss(**x) for x in data["losses"]),
        tuple(
            Rule(x["layer"], x["weight"], _penalties(x["penalties"]))
            for x in data["rules"]
        ),
        Optimizer(**optimizer),
        Fit(**data["fit"]),
        data["seed"],
    )


def _layer(data: dict[str, Any]) -> Layer:
    return Layer(
        **{
            **data,
            "slots": {k: _penalties([v])[0] for k, v in data["slots"].items()},
            "weights": {k: _penalties(v) for k, v in data["weights"].items()},
            "outputs": _penalties(data["outputs"]),
            "penalties": _penalties(data["penalties"]),
            "inner": None if data["inner"] is None else graph_from(data["inner"]),
        }
    )


def _penalties(data: Any) -> tuple[Penalty, ...]:
    return tuple(
        Penalty(x["kind"], Strength(**x["strength"]), dict(x["args"])) for x in data
    )
