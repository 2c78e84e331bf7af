"""The same training, computed a second time from the description alone.

Nothing here comes from `keras_penalties`, nor from Keras: the layers' formulas are in
`forward.py`, those of penalties and strengths in `formulas.py`, the gradients are the
backend's own. All of it is in float64, so that what differs is the package's rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from campaign import formulas, terms
from campaign.arrays import Array, mean, positive, xp
from campaign.data import CLASS_WEIGHTS, Data
from campaign.data_losses import data_loss
from campaign.describe import Call, Graph, Layer, Loss, Model
from campaign.forward import Tensor, apply, dense

State = dict[str, Array]
Logs = dict[str, float]


class Pass:
    """One forward pass: it reads each strength once, and moves each state once."""

    def __init__(
        self, model: Model, weights: State, state: State, training: bool
    ) -> None:
        self.model, self.training = model, training
        self.weights, self.state, self.moved = dict(weights), state, dict(state)
        self.total: Array = xp.array(0.0)
        self.logs: dict[str, Array] = {}
        self._strengths: dict[str, Array] = {}
        self._seen: dict[str, list[Any]] = {}
        self._means: dict[str, list[Array]] = {}
        self._hosts: set[str] = set()
        self._rule_targets: dict[str, list[Tensor]] = {}
        self._layers = {x.name: x for x in model.graph.everywhere()}

    # ------------------------------------------------------------------ graph

    def run(self, graph: Graph, given: list[Tensor]) -> list[Tensor]:
        """What the graph gives out."""
        names = [x.name for x in graph.inputs]
        tensors = dict(zip(names, given, strict=True))
        for call in graph.calls:
            layer = graph.layer(call.layer)
            inputs = [tensors[name] for name in call.inputs]
            tensors[call.output] = self._call(layer, inputs, call)
            self._rule_targets.setdefault(layer.name, []).append(tensors[call.output])
        return [tensors[name] for name in graph.outputs]

    def _call(self, layer: Layer, inputs: list[Tensor], call: Call) -> Tensor:
        if layer.kind == "model":
            assert layer.inner is not None
            output = self.run(layer.inner, inputs)[0]
        elif layer.kind in terms.OWN_HOSTS:
            output = self._own_host(layer, inputs)
        else:
            output = apply(layer, self.weights, inputs, self.training)
        if layer.penalized:
            self._terms(layer, terms.by_layer(layer), lambda t: [output])
        if "activity" in layer.slots:
            p = layer.slots["activity"]
            value = formulas.value(p, output.x) / float(output.x.shape[0])
            self.total = self.total + p.strength.args["value"] * value
        return output

    def _own_host(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        first, found = inputs[0], terms.by_layer(layer)
        if layer.kind == "add_loss":
            value = self._added_loss(layer, inputs)
            self._terms(layer, found, lambda t: value)
            return first
        if layer.kind == "activity_penalty":
            smooth = self._smoothed(layer, first)
            for term in found:
                statistic = term.penalty.kind == "kl_sparsity"
                target = smooth if statistic and smooth is not None else first
                self._terms(layer, [term], lambda t, target=target: [target])
            self._hosts.add(layer.name)
            return first
        fn = functools.partial(dense, layer, _Named(layer.name, self.weights))
        target = Tensor(_derivative(layer, fn, first.x, self.weights))
        self._terms(layer, found, lambda t: [target])
        return Tensor(fn(first.x), first.mask)

    def _added_loss(self, layer: Layer, inputs: list[Tensor]) -> Array:
        loss = Loss(layer.args["loss"], ignore=layer.args["ignore"])
        weight = xp.numpy(inputs[2].x) if len(inputs) > 2 else None
        return data_loss(loss, inputs[0], xp.numpy(inputs[1].x), weight)

    def _smoothed(self, layer: Layer, t: Tensor) -> Tensor | None:
        """The running mean, by all of the pass's calls, with this call's gradient."""
        momentum = layer.args.get("momentum")
        if momentum is None or not self.training:
            return None
        rows = xp.reshape(t.x, (-1, t.x.shape[-1]))
        if t.mask is not None:
            rows = xp.take(rows, np.flatnonzero(t.mask.reshape(-1)))
        seen = self._means.setdefault(layer.name, [])
        seen.append(rows)
        everything = xp.concat(seen, 0)
        key = f"{layer.name}/mean"
        entry = xp.concat([xp.stop(mean(everything, 0)), xp.array([1.0])], 0)
        running = momentum * self.state[key] + (1 - momentum) * entry
        self.moved[key] = running
        own = mean(rows, 0)
        found = running[:-1] / running[-1]
        return Tensor(xp.reshape(own + found - xp.stop(own), (1, -1)))

    # ------------------------------------------------------------------ terms

    def _terms(
        self,
        layer: Layer | None,
        found: list[terms.Term],
        targets: Callable[[terms.Term], Any],
    ) -> None:
        """Add what each term adds in one call of its host."""
        for term in found:
            if term.weight is not None:
                owner = self._layers[term.weight.split("/")[0]]
                if not owner.trainable or term.key in self._strengths:
                    continue  # frozen, or counted in an earlier call
                target: Any = [Tensor(self.weights[term.weight])]
            else:
                target = targets(term)
            self._term(term, target)

    def _term(self, term: terms.Term, target: Any) -> None:
        value = target
        if isinstance(target, list):
            value = sum(self._target_value(term, t) for t in target)
        strength = self._strength(term, target, value)
        added = strength * value
        if term.strength.kind == "learned":
            added = _learned(strength, value)
        self.total = self.total + added
        if term.entry is not None:
            self.logs[term.entry] = self.logs.get(term.entry, 0.0) + added

    def _target_value(self, term: terms.Term, t: Tensor) -> Array:
        value = formulas.value(term.penalty, t.x, t.mask)
        if term.weight is not None or term.penalty.kind in formulas.STATISTICS:
            return value
        samples = t.x.shape[0]
        if t.mask is not None:
            samples = int(np.any(t.mask.reshape(len(t.mask), -1), 1).sum())
        return value / float(samples) if samples else 0.0 * value

    def _strength(self, term: terms.Term, target: Any, value: Array) -> Array:
        """The strength for this call: what the first call of the pass has found."""
        s, key = term.strength, term.key
        first = key not in self._strengths
        if first:
            self._strengths[key] = self._present(term)
        if self.training and s.kind == "target":
            tensors = target if isinstance(target, list) else []
            xs = [t.x if t.mask is None else _real(t) for t in tensors]
            seen = self._seen.setdefault(key, [[], 0.0])
            seen[0], seen[1] = seen[0] + xs, seen[1] + value
            change = s.args["rate"] * formulas.target_error(s, seen[1], seen[0])
            now = self.state[key]
            if first:
                damped = s.args["damping"] * change
                self._strengths[key] = formulas.target_moved(s, now, damped)
            self.moved[key] = formulas.target_moved(s, now, change)
        if self.training and s.kind == "learned" and s.args["initial"] == "auto":
            self._start(term, value, first)
        return self._strengths[key]

    def _start(self, term: terms.Term, value: Array, first: bool) -> None:
        """`1 / (2·L)` of the first batch in which L is above 0."""
        state, value = self.state[term.key], xp.stop(value)
        starts = (state < -1e30) & (value > 0)
        start = 0.5 / xp.where(starts, value, 1.0)
        self.moved[term.key] = xp.where(starts, xp.log(start), state)
        if first:
            present = self._strengths[term.key]
            self._strengths[term.key] = xp.where(starts, start, present)

    def _present(self, term: terms.Term) -> Array:
        s = term.strength
        if s.kind in ("constant", "target"):
            return self.state[term.key]
        if s.kind == "learned":
            state = self.state[term.key]
            return xp.exp(state + self.weights[f"{term.host}/log_strength"])
        steps = int(self.state[f"{term.key.split('/')[0]}/steps"])
        return xp.array(formulas.at_step(s, steps, self.training))

    # -------------------------------------------------------------- at the end

    def finish(self) -> None:
        """The rules of `penalize`, Keras' slots, the strengths in the logs."""
        self._terms(
            None, terms.by_rules(self.model), lambda t: self._rule_targets[t.host]
        )
        for layer in self._layers.values():
            for slot, p in layer.slots.items():
                if slot != "activity" and layer.trainable:
                    name = "recurrent_kernel" if slot == "recurrent" else slot
                    weight = self.weights[f"{layer.name}/{name}"]
                    value = formulas.value(p, weight)
                    self.total = self.total + p.strength.args["value"] * value
        self._log_strengths()

    def _log_strengths(self) -> None:
        shown: dict[str, list[Array]] = {}
        for term in all_terms(self.model):
            if term.entry is None or term.strength.kind == "constant":
                continue
            if term.key in self._strengths:
                present = self._strengths[term.key]
                shown.setdefault(f"{term.entry}_strength", []).append(present)
        for name, present in shown.items():
            self.logs[name] = sum(present) / float(len(present))


class _Named:
    def __init__(self, layer: str, weights: State) -> None:
        self._layer, self._weights = layer, weights

    def __getitem__(self, name: str) -> Array:
        return self._weights[f"{self._layer}/{name}"]


def all_terms(model: Model) -> list[terms.Term]:
    """All terms of layers."""
    found = [t for layer in model.graph.everywhere() for t in terms.by_layer(layer)]
    return found + terms.by_rules(model)


def _real(t: Tensor) -> Array:
    rows = xp.reshape(t.x, (-1, t.x.shape[-1]))
    assert t.mask is not None
    return xp.take(rows, np.flatnonzero(t.mask.reshape(-1)))


def _learned(strength: Array, value: Array) -> Array:
    """`s·L − ½·log(s)`, and nothing of a batch in which nothing was seen."""
    some = xp.where((value != 0) & (strength > 0), 1.0, 0.0)
    safe = xp.where(some > 0, strength, 1.0)
    return some * (safe * value - 0.5 * xp.log(safe))


def _derivative(layer: Layer, fn: Any, x: Array, weights: State) -> Array:
    if layer.kind == "contractive":  # of tanh(xW + b), in closed form
        h = fn(x)
        slope = 1.0 - h * h
        kernel = weights[f"{layer.name}/kernel"]
        return xp.einsum("bj,ij->bij", slope, kernel)
    gradient = xp.slope(fn, x)
    if layer.kind == "input_gradient":
        return gradient
    norm = xp.sqrt(xp.sum(gradient * gradient, 1, True))
    excess = norm - layer.args["radius"]
    return positive(excess) if layer.args["one_sided"] else excess


def objective(
    model: Model, weights: State, state: State, batch: Data, training: bool
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """The total, the logs of a batch, and the weights and states after the pass."""
    now = Pass(model, weights, state, training)
    kinds = [x.shape for x in model.graph.inputs]
    given = [
        Tensor(x if "tokens" in kind else xp.array(x))
        for x, kind in zip(batch.inputs, kinds, strict=True)
    ]
    outputs = now.run(model.graph, given)
    now.finish()
    own = []
    parts = zip(model.losses, outputs, batch.targets, batch.weights, strict=True)
    for loss, output, target, weight in parts:
        if model.fit.class_weight and training:
            weight = np.array([CLASS_WEIGHTS[int(y)] for y in target])
        own.append(data_loss(loss, output, target, weight))
        now.total = now.total + loss.weight * own[-1]
    logs = {"loss": now.total, **now.logs}
    if len(own) > 1 and model.style != "subclassed":
        logs |= {f"data_loss_{i}": value for i, value in enumerate(own)}
    trained = set(trainable(model, weights))
    after = {k: w for k, w in now.weights.items() if k not in trained}
    if training:
        steps = {k: v + 1.0 for k, v in state.items() if k.endswith("/steps")}
        return now.total, logs, {**after, **now.moved, **steps}
    return now.total, logs, {}


def trainable(model: Model, weights: State) -> list[str]:
    """The names of the weights that the optimizer moves."""
    layers = {x.name: x for x in model.graph.everywhere()}
    return [
        name
        for name in weights
        if "/moving_" not in name and layers[name.split("/")[0]].trainable
    ]
