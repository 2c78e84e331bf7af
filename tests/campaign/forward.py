"""What the layers of a description compute, in plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from campaign.arrays import Array, mean, positive, sigmoid, softmax, xp
from campaign.describe import TIME, Layer

Parameters = dict[str, Array]
"""Weights by their layer's name and their own: `"dense_1/kernel"`."""


@dataclass(frozen=True)
class Tensor:
    """An array, and which of its entries are real. Token numbers are plain NumPy."""

    x: Array
    mask: np.ndarray | None = None


def apply(
    layer: Layer, weights: Parameters, inputs: list[Tensor], training: bool
) -> Tensor:
    """What a layer without hosts gives out. A moved statistic lands in `weights`."""
    first = inputs[0]
    w = _Weights(layer.name, weights)
    if layer.kind == "add":
        one, other = inputs[0].mask, inputs[1].mask
        some = None if one is None or other is None else one | other  # as Keras merges
        return Tensor(inputs[0].x + inputs[1].x, some)
    if layer.kind == "attention":
        return Tensor(_attention(layer, w, first.x, inputs[1]), first.mask)
    return _LAYERS[layer.kind](layer, w, first, training)


class _Weights:
    def __init__(self, layer: str, weights: Parameters) -> None:
        self._layer, self._weights = layer, weights

    def __getitem__(self, name: str) -> Array:
        return self._weights[f"{self._layer}/{name}"]

    def __setitem__(self, name: str, value: Array) -> None:
        self._weights[f"{self._layer}/{name}"] = value


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "tanh": lambda x: xp.tanh(x),
    "sigmoid": sigmoid,
    "relu": positive,
    "softplus": lambda x: xp.log(1.0 + xp.exp(x)),
}


def dense(layer: Layer, w: Any, x: Array) -> Array:
    """`activation(x·kernel + bias)`."""
    product = xp.einsum("...i,ij->...j", x, w["kernel"])
    return ACTIVATIONS[layer.args["activation"]](product + w["bias"])


def _dense(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    return Tensor(dense(layer, w, t.x), t.mask)


def _conv1d(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    """A kernel of two, `padding="same"`: one zero after the end."""
    x = t.x
    later = xp.concat([x[:, 1:], 0.0 * x[:, :1]], 1)
    y = xp.einsum("bti,ij->btj", x, w["kernel"][0])
    y = y + xp.einsum("bti,ij->btj", later, w["kernel"][1]) + w["bias"]
    return Tensor(ACTIVATIONS[layer.args["activation"]](y))  # Keras drops the mask


def _conv2d(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    x, y = t.x, w["bias"]
    for i in (0, 1):
        for j in (0, 1):
            moved = xp.concat([x[:, i:], 0.0 * x[:, :i]], 1) if i else x
            moved = xp.concat([moved[:, :, j:], 0.0 * x[:, :, :j]], 2) if j else moved
            y = y + xp.einsum("bhwi,ij->bhwj", moved, w["kernel"][i, j])
    return Tensor(ACTIVATIONS[layer.args["activation"]](y))


def _embedding(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    tokens = t.x
    mask = tokens != 0 if layer.args["mask_zero"] else None
    return Tensor(xp.take(w["embeddings"], tokens), mask)


def _masking(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    mask = np.any(xp.numpy(t.x) != 0, -1)
    return Tensor(t.x, mask)


def _lstm(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    """Where a step is masked, the state and the output stay as they were."""
    units = w["recurrent_kernel"].shape[0]
    h = c = given = 0.0 * t.x[:, 0, :1] * xp.array(np.ones((1, units)))
    outputs = []
    for step in range(TIME):
        z = xp.einsum("bi,ij->bj", t.x[:, step], w["kernel"])
        z = z + xp.einsum("bi,ij->bj", h, w["recurrent_kernel"]) + w["bias"]
        i, f, g, o = (z[:, k * units : (k + 1) * units] for k in range(4))
        new_c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
        new_h = sigmoid(o) * xp.tanh(new_c)
        if t.mask is None:
            h, c, given = new_h, new_c, new_h
        else:
            real = t.mask[:, step : step + 1]
            h, c = xp.where(real, new_h, h), xp.where(real, new_c, c)
            given = xp.where(real, new_h, given)
        outputs.append(given)
    if layer.args["sequences"]:
        return Tensor(xp.stack(outputs, 1), t.mask)
    return Tensor(given)


def _attention(layer: Layer, w: Any, query: Array, value: Tensor) -> Array:
    def projected(name: str, x: Array) -> Array:
        return xp.einsum("bti,ihd->bthd", x, w[f"{name}/kernel"]) + w[f"{name}/bias"]

    q, k, v = (
        projected("query", query),
        projected("key", value.x),
        projected("value", value.x),
    )
    scores = xp.einsum("bthd,bshd->bhts", q, k) / float(q.shape[-1]) ** 0.5
    if value.mask is not None:
        hidden = np.where(value.mask, 0.0, -1e3)[:, None, None, :]  # exp(-1000) = 0
        scores = scores + xp.array(hidden)
    mixed = xp.einsum("bhts,bshd->bthd", softmax(scores), v)
    output = xp.einsum("bthd,hdo->bto", mixed, w["attention_output/kernel"])
    return output + w["attention_output/bias"]


def _layer_normalization(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    centred = t.x - mean(t.x, -1, True)
    variance = mean(centred * centred, -1, True)
    y = centred / xp.sqrt(variance + 1e-3)
    return Tensor(y * w["gamma"] + w["beta"], t.mask)


def _batch_normalization(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    average, variance = w["moving_mean"], w["moving_variance"]
    if training:
        rows = xp.reshape(t.x, (-1, t.x.shape[-1]))
        if t.mask is not None:
            rows = xp.take(rows, np.flatnonzero(t.mask.reshape(-1)))
        moving = average, variance
        average = mean(rows, 0)
        variance = mean((rows - average) * (rows - average), 0)
        keep = layer.args["momentum"]
        w["moving_mean"] = keep * moving[0] + (1 - keep) * xp.stop(average)
        w["moving_variance"] = keep * moving[1] + (1 - keep) * xp.stop(variance)
    y = (t.x - average) / xp.sqrt(variance + 1e-3)
    return Tensor(y * w["gamma"] + w["beta"], t.mask)


def _pooling(layer: Layer, w: Any, t: Tensor, training: bool) -> Tensor:
    if t.mask is not None:
        real = xp.array(t.mask[..., None].astype("float64"))
        return Tensor(xp.sum(t.x * real, 1) / xp.sum(real, 1))
    return Tensor(mean(t.x, tuple(range(1, len(t.x.shape) - 1))))


_LAYERS = {
    "dense": _dense,
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "embedding": _embedding,
    "masking": _masking,
    "lstm": _lstm,
    "layer_normalization": _layer_normalization,
    "batch_normalization": _batch_normalization,
    "pooling": _pooling,
}
