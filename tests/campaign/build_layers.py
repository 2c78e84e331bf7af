"""From a description to Keras layers with the package's hosts, called in order."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers as kl

import keras_penalties as kp
from campaign import terms
from campaign.describe import SHAPES, WIDTH, WORDS, Graph, Layer, Penalty, Strength

_PENALTIES = {
    "l1": kp.penalties.L1,
    "l2": kp.penalties.L2,
    "elastic_net": kp.penalties.ElasticNet,
    "huber_l1": kp.penalties.HuberL1,
    "non_negative": kp.penalties.NonNegative,
    "hoyer": kp.penalties.Hoyer,
    "kl_sparsity": kp.penalties.KLSparsity,
    "decorrelation": kp.penalties.Decorrelation,
    "variance_covariance": kp.penalties.VarianceCovariance,
}


def strength_of(given: Strength) -> Any:
    """The package's strength."""
    a, schedules = given.args, keras.optimizers.schedules
    return {
        "constant": lambda: a["value"],
        "linear": lambda: kp.strengths.LinearRamp(**a),
        "cosine": lambda: kp.strengths.CosineRamp(**a),
        "cyclical": lambda: kp.strengths.Cyclical(**a),
        "exponential": lambda: schedules.ExponentialDecay(
            a["start"], a["steps"], a["decay"]
        ),
        "piecewise": lambda: schedules.PiecewiseConstantDecay(
            list(a["boundaries"]), list(a["values"])
        ),
        "lazy": lambda: kp.strengths.Lazy(**a),
        "target": lambda: kp.Target(**a),
        "learned": lambda: kp.strengths.Learned(**a),
    }[given.kind]()


def penalty_of(penalties: tuple[Penalty, ...]) -> Any:
    """The package's penalty: a sum, where there are several."""
    made = []
    for p in penalties:
        strength = strength_of(p.strength)
        if p.kind == "grouped":
            made.append(kp.penalties.Grouped(kp.penalties.L1(strength), **p.args))
        else:
            made.append(_PENALTIES[p.kind](strength, **p.args))
    total = made[0]
    for other in made[1:]:
        total = total + other
    return total


def _plain(layer: Layer) -> Any:
    """The Keras layer, with its slots, without a host around it."""
    a, named = layer.args, {"name": layer.name}
    slots = {f"{k}_regularizer": penalty_of((p,)) for k, p in layer.slots.items()}
    given = {**named, **slots}
    return {
        "dense": lambda: kl.Dense(WIDTH, a["activation"], **given),
        "conv1d": lambda: kl.Conv1D(
            WIDTH, 2, padding="same", activation=a["activation"], **given
        ),
        "conv2d": lambda: kl.Conv2D(
            WIDTH, 2, padding="same", activation=a["activation"], **given
        ),
        "embedding": lambda: kl.Embedding(
            WORDS, WIDTH, mask_zero=a["mask_zero"], **given
        ),
        "masking": lambda: kl.Masking(**named),
        "lstm": lambda: kl.LSTM(WIDTH, return_sequences=a["sequences"], **given),
        "attention": lambda: kl.MultiHeadAttention(a["heads"], 2, **named),
        "layer_normalization": lambda: kl.LayerNormalization(**given),
        "batch_normalization": lambda: kl.BatchNormalization(
            momentum=a["momentum"], **given
        ),
        "pooling": lambda: (
            kl.GlobalAveragePooling2D if a["image"] else kl.GlobalAveragePooling1D
        )(**named),
        "add": lambda: kl.Add(**named),
    }[layer.kind]()


@dataclass
class Made:
    """A layer as it is called, and the Keras layer that holds the weights."""

    called: Any
    plain: Any


def make_layers(graph: Graph) -> dict[str, Made]:
    """The layers of a graph, by name."""
    return {layer.name: _made(layer) for layer in graph.layers}


def _made(layer: Layer) -> Made:
    a, name = layer.args, layer.name
    if layer.kind == "model":
        assert layer.inner is not None
        model = functional(layer.inner, make_layers(layer.inner), name)
        return Made(model, model)
    if layer.kind == "activity_penalty":
        penalty = penalty_of(layer.penalties)
        host = kp.layers.ActivityPenalty(penalty, a["momentum"], name=name)
        return Made(host, host)
    if layer.kind == "add_loss":
        word = {"mse": "mean_squared_error", "half": "half_sum_squared_error"}
        host = kp.layers.AddLoss(
            word[a["loss"]],
            strength_of(layer.penalties[0].strength),
            ignore="nan" if a["ignore"] else None,
            name=name,
        )
        return Made(host, host)
    if layer.kind in terms.DERIVATIVES:
        plain = kl.Dense(WIDTH, a["activation"], name=name)
        return Made(_derivative_host(layer, plain), plain)
    plain = _plain(layer)
    plain.trainable = layer.trainable
    if not layer.penalized:
        return Made(plain, plain)
    weights = {k: penalty_of(p) for k, p in layer.weights.items()}
    outputs = penalty_of(layer.outputs) if layer.outputs else None
    return Made(kp.layers.Penalized(plain, weights, outputs, layer.log), plain)


def _derivative_host(layer: Layer, plain: Any) -> Any:
    a = layer.args
    if layer.kind == "input_gradient":
        return kp.layers.InputGradient(plain, penalty_of(layer.penalties))
    strength = strength_of(layer.penalties[0].strength)
    if layer.kind == "contractive":
        return kp.layers.Contractive(plain, strength)
    return kp.layers.GradientPenalty(plain, strength, a["radius"], a["one_sided"])


def walk(
    graph: Graph, made: dict[str, Made], given: list[Any], **training: Any
) -> list[Any]:
    """Call the layers of a graph, one after the other.

    A subclassed model hands `training` on to them: else they may not see it.
    """
    tensors = {x.name: t for x, t in zip(graph.inputs, given, strict=True)}
    for call in graph.calls:
        layer, inputs = graph.layer(call.layer), [tensors[n] for n in call.inputs]
        called = made[call.layer].called
        takes = "training" in inspect.signature(called.call).parameters
        more = dict(training) if takes else {}
        if layer.kind == "add_loss":
            more["y_true"] = inputs[1]
            if len(inputs) > 2:
                more["sample_weight"] = inputs[2]
            tensors[call.output] = called(inputs[0], **more)
        elif layer.kind == "add":
            tensors[call.output] = called(inputs)
        else:
            tensors[call.output] = called(*inputs, **more)
    return [tensors[name] for name in graph.outputs]


def functional(graph: Graph, made: dict[str, Made], name: str | None = None) -> Any:
    """A functional model."""
    inputs = [input_of(x) for x in graph.inputs]
    outputs = walk(graph, made, inputs)
    return keras.Model(one(inputs), one(outputs), name=name)


def input_of(given: Any) -> Any:
    dtype = "int32" if "tokens" in given.shape else "float32"
    return keras.Input(SHAPES[given.shape], dtype=dtype, name=given.name)


def one(things: list[Any]) -> Any:
    return things[0] if len(things) == 1 else things
