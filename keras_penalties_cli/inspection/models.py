"""The layers that each model class of this package makes, as a config has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_penalties_cli.inspection.saved import OURS, Json, Saved, listed, number

Layers = dict[str, dict[str, Any]]


def layers_inside(model: Saved) -> Mapping[str, Any] | None:
    """The layers that host terms in a model of this package, by their attribute."""
    if model.is_ours("SparseAutoencoder"):
        return _sparse(model)
    if model.is_ours("ReLUAutoencoder", "GatedAutoencoder"):
        penalty = model.config.get("penalty")
        inside = {
            "cost": made(model, "ActivityPenalty", name="penalty", penalty=penalty)
        }
        if model.is_ours("GatedAutoencoder"):
            inside["gate_alone"] = _half_squares(model, "gate_alone")
        return inside
    if model.is_ours("JumpReLUAutoencoder"):
        strength, smooth = (model.config.get(k) for k in ("sparsity", "smooth"))
        own: dict[str, Json] = {"strength": strength, "smooth": smooth}
        return {"activation": made(model, "JumpReLU", name="activation", **own)}
    if model.is_ours(
        "TopKAutoencoder", "BatchTopKAutoencoder", "MatryoshkaAutoencoder"
    ):
        return _by_rank(model)
    return None


def made(model: Saved, kind: str, /, **config: Json) -> dict[str, Json]:
    """A layer of this package as its config would be."""
    trainable = model.config.get("trainable", True)
    node = {"registered_name": f"{OURS}>{kind}", "class_name": kind}
    return {**node, "config": {"trainable": trainable, **config}}


def _half_squares(model: Saved, name: str) -> dict[str, Json]:
    loss = made(model, "HalfSumSquaredError")
    return made(model, "AddLoss", name=name, loss=loss, strength=1.0)


def _by_rank(model: Saved) -> Mapping[str, Any]:
    inside: Layers = {}
    if (strength := model.config.get("aux")) is not None:
        own: dict[str, Json] = {"name": "dead_units", "strength": strength}
        inside["dead_units"] = made(model, "AuxK", **own)
    widths = listed(model.config.get("widths"))
    nested = [_half_squares(model, f"first_{width}_units") for width in widths]
    return {**inside, "nested": nested}


def _sparse(model: Saved) -> Layers:
    decay = number(model.config.get("weight_decay")) or 0.0
    sparsity = number(model.config.get("sparsity")) or 0.0

    def dense(name: str) -> dict[str, Json]:
        layer: dict[str, Json] = {"class_name": "Dense", "config": {"name": name}}
        if not decay:
            return layer
        weights: dict[str, Json] = {"kernel": made(model, "L2", strength=decay / 2.0)}
        name = f"penalized_{name}"
        return made(model, "Penalized", name=name, layer=layer, weights=weights)

    inside = {"encoder": dense("encoder")}
    if sparsity:
        rate = model.config.get("rate")
        penalty = made(model, "KLSparsity", strength=sparsity, rate=rate)
        inside["code"] = made(model, "ActivityPenalty", name="code", penalty=penalty)
    return inside | {"decoder": dense("decoder")}
