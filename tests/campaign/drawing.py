"""One graph, drawn layer by layer: which layers may follow, and with which hosts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from campaign.describe import (
    Call,
    Graph,
    Input,
    Layer,
)
from campaign.draw_penalties import (
    activity_penalties,
    derivative_penalties,
    loss_strengths,
    output_penalties,
    slot_penalties,
    weight_penalties,
)

Draw = Any


@dataclass
class Open:
    """A tensor that the next layer may take."""

    name: str
    kind: str
    masked: bool = False
    sigmoid: bool = False


WEIGHTS = {
    "dense": ("kernel", "bias"),
    "conv1d": ("kernel", "bias"),
    "conv2d": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "lstm": ("kernel", "recurrent_kernel"),
    "attention": ("query/kernel", "attention_output/kernel"),
    "layer_normalization": ("gamma",),
    "batch_normalization": ("gamma",),
}
SLOTS = {
    "dense": ("kernel", "bias", "activity"),
    "conv1d": ("kernel", "bias", "activity"),
    "conv2d": ("kernel", "bias", "activity"),
    "embedding": ("embeddings",),
    "lstm": ("kernel", "recurrent"),
    "layer_normalization": ("gamma",),
    "batch_normalization": ("gamma",),
}
ANY = ["dense", "activity_penalty", "layer_normalization", "batch_normalization"]
KINDS = {
    "flat": [*ANY, "derivative", "derivative", "model", "dense", "add_loss"],
    "sequence": [*ANY, "conv1d", "lstm", "lstm_last", "attention", "model"],
    "image": [*ANY, "conv2d", "conv2d"],
}
SIGN_ON = {"kernel": "kernel", "recurrent": "recurrent_kernel"}


class Drawing:
    """What has been drawn so far of one graph."""

    def __init__(self, draw: Draw, style: str, prefix: str = "") -> None:
        self.draw, self.style, self.prefix = draw, style, prefix
        self.inputs: list[Input] = []
        self.layers: list[Layer] = []
        self.calls: list[Call] = []
        self.free: list[tuple[str, str]] = []
        """Weights that no host has yet."""

    def one(self, *options: Any) -> Any:
        """One of some options. Hypothesis shrinks to the first."""
        return self.draw(st.sampled_from(options))

    def name(self, word: str) -> str:
        """A name that no other layer of the whole model has."""
        return f"{self.prefix}{word}_{len(self.layers)}"

    def input(self, shape: str) -> Open:
        """A new input."""
        made = Input(f"{self.prefix}input_{len(self.inputs)}", shape)
        self.inputs.append(made)
        return Open(made.name, shape)

    def call(self, layer: Layer, *inputs: Open, **changes: Any) -> Open:
        """The layer called, noted if it is new."""
        if all(layer is not known for known in self.layers):
            self.layers.append(layer)
        output = f"{self.prefix}t{len(self.calls)}"
        taken = tuple(x.name for x in inputs)
        self.calls.append(Call(layer.name, taken, output))
        kept = dataclasses.replace(inputs[0], name=output, sigmoid=False)
        return dataclasses.replace(kept, **changes)

    # -------------------------------------------------------------- one layer

    def hosted(self, layer: Layer, output_sigmoid: bool = False) -> Layer:
        """The layer with a host, or with none."""
        weights, slots = WEIGHTS[layer.kind], SLOTS.get(layer.kind, ())
        host = self.one("none", "penalized", "slot", "penalized", "none")
        if host == "slot" and slots:
            slot = self.one(*slots)
            penalty = self.draw(slot_penalties(slot))
            taken = SIGN_ON.get(slot, slot)
            self.free += [(layer.name, w) for w in weights if w != taken]
            if layer.trainable:
                return dataclasses.replace(layer, slots={slot: penalty})
        if host == "penalized":
            return self.penalized(layer, weights, output_sigmoid)
        if layer.trainable:
            self.free += [(layer.name, w) for w in weights]
        return layer

    def penalized(self, layer: Layer, weights: tuple[str, ...], sigmoid: bool) -> Layer:
        """The layer in `Penalized`."""
        where = self.one("outputs", "weights", "both")
        chosen: dict[str, Any] = {}
        if where != "outputs":
            names = weights if self.one(False, True) else weights[:1]
            chosen = {n: self.draw(weight_penalties("bias" in n)) for n in names}
        outputs: Any = ()
        if where != "weights":
            outputs = self.draw(output_penalties(sigmoid))
        log = self.one("weight", "rule", "weight", False)
        return dataclasses.replace(layer, weights=chosen, outputs=outputs, log=log)

    def activation(self) -> str:
        return self.one("linear", "tanh", "sigmoid", "relu")

    def step(self, x: Open, others: list[Open]) -> Open:
        """One more layer on a tensor: an earlier one once more, or a new one."""
        shared = [
            layer
            for layer in self.layers
            if layer.kind not in ("add_loss", "embedding", "masking", "attention")
            and layer.args.get("on") == x.kind
        ]
        if shared and self.style != "sequential" and self.one(False, True):
            layer = self.one(*shared)
            return self.call(layer, x, sigmoid=_gives_sigmoid(layer))
        # Few tensors have the domain of a mean activation: else it hardly occurs.
        kind = self.one(*KINDS[x.kind], *["activity_penalty"] * 6 * x.sigmoid)
        if kind == "add_loss" and self.style == "sequential":
            kind = "dense"
        if kind == "model" and self.prefix:
            kind = "dense"
        return getattr(self, kind, self.plain)(kind, x, others)

    def plain(self, kind: str, x: Open, others: list[Open]) -> Open:
        """A layer with weights, perhaps with a host."""
        args: dict[str, Any] = {"on": x.kind}
        if kind in ("dense", "conv1d", "conv2d"):
            args["activation"] = self.activation()
        if kind == "batch_normalization":
            args["momentum"] = 0.9
        sigmoid = args.get("activation") == "sigmoid"
        frozen = kind in ("dense", "conv1d") and self.one(*[False] * 7, True)
        layer = Layer(kind, self.name(kind), args, trainable=not frozen)
        masked = x.masked and kind != "conv1d"
        layer = self.hosted(layer, sigmoid)
        return self.call(layer, x, sigmoid=sigmoid, masked=masked)

    def lstm(self, kind: str, x: Open, others: list[Open]) -> Open:
        layer = Layer("lstm", self.name("lstm"), {"sequences": True, "on": x.kind})
        return self.call(self.hosted(layer), x)

    def lstm_last(self, kind: str, x: Open, others: list[Open]) -> Open:
        layer = Layer("lstm", self.name("lstm"), {"sequences": False})
        return self.call(self.hosted(layer), x, kind="flat", masked=False)

    def attention(self, kind: str, x: Open, others: list[Open]) -> Open:
        sequences = [t for t in others if t.kind == "sequence"]
        other = self.one(x, *sequences) if self.style != "sequential" else x
        if x.masked or self.style == "sequential":  # see `limits`
            return self.plain("dense", x, others)
        layer = Layer("attention", self.name("attention"), {"heads": self.one(1, 2)})
        return self.call(self.hosted(layer), x, other)

    def derivative(self, kind: str, x: Open, others: list[Open]) -> Open:
        kind = self.one("input_gradient", "gradient_penalty", "contractive")
        activation = "tanh"
        if kind != "contractive":
            activation = self.one("tanh", "sigmoid", "softplus")
        args: dict[str, Any] = {"activation": activation, "on": x.kind}
        if kind == "gradient_penalty":
            args |= {"radius": 0.5, "one_sided": self.one(False, True)}
        several = kind == "input_gradient"
        penalties = self.draw(derivative_penalties(several))
        layer = Layer(kind, self.name(kind), args, penalties=penalties)
        return self.call(layer, x, sigmoid=activation == "sigmoid")

    def activity_penalty(self, kind: str, x: Open, others: list[Open]) -> Open:
        penalties, momentum = self.draw(activity_penalties(x.sigmoid))
        on = x.kind if not x.sigmoid else "sigmoid"
        args = {"momentum": momentum, "on": on}
        layer = Layer(kind, self.name("code"), args, penalties=penalties)
        return self.call(layer, x)

    def add_loss(self, kind: str, x: Open, others: list[Open]) -> Open:
        unknown = self.one(False, True)
        given = [self.input("unknown_target" if unknown else "target")]
        if self.one(False, True):
            given.append(self.input("weight"))
        args = {"loss": self.one("mse", "half"), "ignore": unknown}
        penalties = (self.draw(loss_strengths()),)
        layer = Layer("add_loss", self.name("extra"), args, penalties=penalties)
        return self.call(layer, x, *given)

    def model(self, kind: str, x: Open, others: list[Open]) -> Open:
        """A model as a layer."""
        name = self.name("net")
        inner = Drawing(self.draw, "functional", f"{name}_")
        inside = inner.input(x.kind)
        inside.masked = x.masked
        for word in self.one(("dense",), ("dense", "activity_penalty")):
            inside = getattr(inner, word, inner.plain)(word, inside, [])
        self.free += inner.free
        layer = Layer("model", name, {"on": x.kind}, inner=inner.graph([inside]))
        return self.call(layer, x, sigmoid=inside.sigmoid)

    # -------------------------------------------------------------- the whole

    def graph(self, outputs: list[Open]) -> Graph:
        """What has been drawn."""
        names = tuple(x.name for x in outputs)
        return Graph(tuple(self.inputs), tuple(self.layers), tuple(self.calls), names)

    def stem(self) -> Open:
        """An input, as a tensor of numbers."""
        shape = self.one(
            "flat", "flat", "sequence", "image", "tokens", "padded", "padded_tokens"
        )
        x = self.input(shape)
        if "tokens" in shape:
            masked = shape == "padded_tokens"
            layer = Layer("embedding", self.name("words"), {"mask_zero": masked})
            return self.call(self.hosted(layer), x, kind="sequence", masked=masked)
        if shape == "padded":
            layer = Layer("masking", self.name("masking"))
            return self.call(layer, x, kind="sequence", masked=True)
        return x

    def to_flat(self, x: Open) -> Open:
        """One vector for each sample."""
        args = {"image": x.kind == "image"}
        layer = Layer("pooling", self.name("pooling"), args)
        return self.call(layer, x, kind="flat", masked=False)

    def head(self, x: Open) -> Open:
        """The last layer before an output, called once."""
        layer = Layer("dense", self.name("head"), {"activation": "linear"})
        return self.call(self.hosted(layer), x)


def _gives_sigmoid(layer: Layer) -> bool:
    return layer.args.get("activation") == "sigmoid"
