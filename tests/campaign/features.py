"""What a description has in it: hosts, layers, strengths, modes."""

from __future__ import annotations

from campaign import terms
from campaign.describe import Layer, Model, Penalty


def features(model: Model) -> set[str]:
    """Words for all that occurs in a case."""
    found = {f"style: {model.style}"}
    for layer in model.graph.everywhere():
        found |= _of_layer(layer)
    for rule in model.rules:
        found.add(f"host: penalize {'weights' if rule.weight else 'outputs'}")
        found |= _of_penalties(rule.penalties)
    if model.optimizer.kind != "sgd":
        found.add(f"host: {model.optimizer.kind.capitalize()}")
    for penalties in model.optimizer.penalties.values():
        found |= _of_penalties(penalties)
    return found | _of_calls(model) | _of_losses(model) | _of_mode(model)


def _of_layer(layer: Layer) -> set[str]:
    found = {f"layer: {layer.kind}"}
    found |= {
        f"host: {'activity slot' if s == 'activity' else 'slot'}" for s in layer.slots
    }
    if layer.weights:
        found.add("host: Penalized weights")
    if layer.outputs:
        found.add("host: Penalized outputs")
    if layer.kind in terms.OWN_HOSTS:
        found.add(f"host: {layer.kind}")
    if layer.args.get("momentum") and layer.kind == "activity_penalty":
        found.add("strength: running mean")
    if not layer.trainable:
        found.add("mode: frozen")
    found |= _of_penalties((*layer.slots.values(), *layer.penalties, *layer.outputs))
    for penalties in layer.weights.values():
        found |= _of_penalties(penalties)
    return found


def _of_penalties(penalties: tuple[Penalty, ...]) -> set[str]:
    found = {f"strength: {p.strength.kind}" for p in penalties}
    return found | {f"penalty: {p.kind}" for p in penalties if p.kind != "loss"}


def _of_calls(model: Model) -> set[str]:
    found, called = set(), [call.layer for call in model.graph.calls]
    for layer in model.graph.layers:
        if called.count(layer.name) < 2:
            continue
        found.add("graph: shared layer")
        own = [*layer.outputs, *layer.penalties]
        own += [p for penalties in layer.weights.values() for p in penalties]
        if any(p.strength.kind != "constant" for p in own):
            found.add("graph: shared layer, moving strength")
    shapes = {x.shape for x in model.graph.inputs}
    if len(shapes) > 1:
        found.add("graph: several inputs")
    if shapes & {"padded", "padded_tokens"}:
        found.add("graph: masks")
    return found


def _of_losses(model: Model) -> set[str]:
    found = {f"loss: {x.kind}" for x in model.losses}
    if len(model.losses) > 1:
        found.add("graph: several outputs")
    if any(x.ignore for x in model.losses):
        found.add("loss: unknown labels")
    if any(x.sample_weight for x in model.losses):
        found.add("loss: sample weights")
    if model.fit.class_weight:
        found.add("loss: class weights")
    return found


def _of_mode(model: Model) -> set[str]:
    fit = model.fit
    found = {f"mode: {fit.policy}", f"mode: jit {fit.jit}"}
    if fit.eager:
        found = {f"mode: {fit.policy}", "mode: eager"}
    if fit.samples % fit.batch:
        found.add("mode: ragged last batch")
    if fit.batch == 1:
        found.add("mode: batch of one")
    if fit.steps > 1:
        found.add("mode: steps_per_execution")
    if model.optimizer.accumulation:
        found.add("mode: gradient accumulation")
    return found
