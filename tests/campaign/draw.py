"""Random descriptions, drawn by hypothesis, so that a failing one can be shrunk."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from campaign import limits
from campaign.arrays import BACKEND
from campaign.describe import Fit, Layer, Loss, Model, Optimizer, Rule
from campaign.draw_penalties import (
    output_penalties,
    proximal_penalties,
    weight_penalties,
)
from campaign.drawing import Draw, Drawing, Open


@st.composite
def models(draw: Draw) -> Model:
    """A whole case, that Keras itself gets right."""
    style = draw(
        st.sampled_from(["functional", "functional", "sequential", "subclassed"])
    )
    d = Drawing(draw, style)
    several = style != "sequential" and d.one(False, False, True)
    chains = [d.stem() for _ in range(2 if several else 1)]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(chains) - 1))
        chains[place] = d.step(chains[place], chains)
    outputs = _outputs(d, chains)
    losses = _losses(d, outputs)
    graph = d.graph(outputs)
    rules, optimizer = _rest(d, style)
    fit = _fit(d, losses, outputs)
    if optimizer.kind == "sgd" or d.one(True, False):
        every = d.one(None, None, None, 2, 3)
        optimizer = dataclasses.replace(optimizer, accumulation=every)
    seed = draw(st.integers(0, 999))
    model = Model(graph, style, losses, rules, optimizer, fit, seed)
    assume(limits.reason(model, BACKEND) is None)
    return model


def _outputs(d: Drawing, chains: list[Open]) -> list[Open]:
    """The chains joined into one output, or one output each."""
    flat = [
        x
        if x.kind == "flat" or (x.kind == "sequence" and d.one(False, True))
        else d.to_flat(x)
        for x in chains
    ]
    if len(flat) == 2 and flat[0].kind == flat[1].kind and d.one(True, False):
        layer = Layer("add", d.name("add"))
        masked = flat[0].masked and flat[1].masked
        flat = [d.call(layer, *flat, masked=masked)]
    elif len(flat) == 1 and d.style != "sequential" and d.one(False, False, True):
        flat = [flat[0], flat[0]]
    return [d.head(x) for x in flat]


def _losses(d: Drawing, outputs: list[Open]) -> tuple[Loss, ...]:
    weighted = d.one(False, True)
    found = []
    for output in outputs:
        kinds = ["mse", "half", "pinball"]
        kind = d.one(*kinds, *["crossentropy"] * 2 * (output.kind == "flat"))
        ignore = kind in ("half", "pinball") and d.one(False, True)
        weight = d.one(1.0, 0.5, 2.0) if len(outputs) > 1 else 1.0
        found.append(Loss(kind, ignore, weight, weighted))
    return tuple(found)


def _rest(d: Drawing, style: str) -> tuple[tuple[Rule, ...], Optimizer]:
    """The rules of `penalize` and the optimizer, on weights that nobody has yet."""
    free, rules = list(dict.fromkeys(d.free)), []
    trained = {x.name for x in d.layers if x.trainable}
    inner = [y for x in d.layers if x.inner is not None for y in x.inner.layers]
    trained |= {x.name for x in inner if x.trainable}
    free = [(layer, w) for layer, w in free if layer in trained]
    if style != "subclassed" and d.one(False, True):
        for _ in range(d.one(1, 2)):
            plain = [
                x.name
                for x in d.layers
                if x.kind in ("dense", "lstm", "conv1d", "conv2d") and not x.penalized
            ]
            taken = {r.layer for r in rules if r.weight is None}
            plain = [name for name in plain if name not in taken]
            if plain and d.one(False, True):
                penalties = d.draw(output_penalties(False))
                rules.append(Rule(d.one(*plain), None, penalties))
            elif free:
                layer, weight = free.pop(free.index(d.one(*free)))
                penalties = d.draw(weight_penalties("bias" in weight))
                rules.append(Rule(layer, weight, penalties))
    kind = d.one("sgd", "proximal", "penalizing") if free else "sgd"
    rate = d.one(0.1, 0.03)
    chosen: dict[str, Any] = {}
    if kind != "sgd":
        for _ in range(min(len(free), d.one(1, 2))):
            layer, weight = free.pop(free.index(d.one(*free)))
            flat = "bias" in weight or "gamma" in weight
            drawn = proximal_penalties if kind == "proximal" else weight_penalties
            chosen[f"{layer}/{weight}"] = d.draw(drawn(flat))
    return tuple(rules), Optimizer(kind, rate, None, chosen)


def _fit(d: Drawing, losses: tuple[Loss, ...], outputs: list[Open]) -> Fit:
    samples, batch = d.one((4, 4), (5, 2), (3, 1), (6, 4), (1, 1), (6, 3))
    # Without a compiler JAX compiles each operation by itself: 10 seconds a model.
    eager = d.one(*[False] * 14, True)
    jit = "auto" if eager else d.one(*["auto", True] * 5, False)
    steps = 1 if eager else d.one(1, 1, 1, 2)
    policy = d.one(*["float32"] * 9, "mixed_bfloat16")
    one = len(losses) == 1 and losses[0].kind == "crossentropy"
    classes = one and not losses[0].sample_weight and outputs[0].kind == "flat"
    epochs = d.one(1, 2)
    return Fit(
        samples,
        batch,
        epochs,
        jit,
        eager,
        steps,
        policy,
        bool(classes and d.one(False, True)),
    )
