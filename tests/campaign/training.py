"""The steps of the optimizer, computed a second time: weights, states, logs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from campaign import formulas, terms
from campaign.arrays import BACKEND, Array, xp
from campaign.data import Data
from campaign.describe import Model
from campaign.recompute import Logs, State, all_terms, objective, trainable


class Training:
    """A case in training, from the weights that it starts from."""

    def __init__(self, model: Model, weights: dict[str, np.ndarray]) -> None:
        self.model = model
        with xp.precise():
            self.weights: State = {k: xp.array(w) for k, w in weights.items()}
            self._start_states()
            self._trained = trainable(model, self.weights)
            self._sums = {n: 0.0 * self.weights[n] for n in self._trained}
        self.passes = self.steps = 0

    def _start_states(self) -> None:
        numbers: dict[str, float] = {}
        optimizer = terms.by_optimizer(self.model)
        for term in [*all_terms(self.model), *optimizer]:
            numbers[term.key] = formulas.initial(term.strength)
            numbers[f"{term.key.split('/')[0]}/steps"] = 0.0
            if term.strength.kind == "learned":
                given = term.strength.args["initial"]
                start = 0.0 if given == "auto" else math.log(given)
                self.weights[f"{term.host}/log_strength"] = xp.array(start)
        self.state: State = {k: xp.array(v) for k, v in numbers.items()}
        for layer in self.model.graph.everywhere():
            if layer.args.get("momentum") and layer.kind == "activity_penalty":
                width = 4  # the units, and the sum of the mean's own weights
                self.state[f"{layer.name}/mean"] = xp.array(np.zeros(width))

    def fit(self, data: Data, epochs: int) -> list[Logs]:
        """The logs of each epoch."""
        return [self._epoch(data, training=True) for _ in range(epochs)]

    def evaluate(self, data: Data) -> Logs:
        """The logs of an evaluation."""
        return self._epoch(data, training=False)

    def _epoch(self, data: Data, training: bool) -> Logs:
        sums: Logs = {}
        batches = list(self._batches(data))
        alike = len(data.inputs[0]) / len(batches)
        with xp.precise():
            for batch, size in batches:
                logs = self._step(batch) if training else self._look(batch)
                for name, x in logs.items():
                    share = alike if self._batches_count_alike(name) else size
                    sums[name] = sums.get(name, 0.0) + share * float(xp.numpy(x))
            if training and self.model.optimizer.kind != "sgd":
                sums |= {k: v * len(data.inputs[0]) for k, v in self._optimizer_logs()}
        return {name: total / len(data.inputs[0]) for name, total in sums.items()}

    def _batches_count_alike(self, name: str) -> bool:
        """Whether Keras gives a small batch the weight of a large one in a log.

        It does so for the losses of single outputs, never for `loss`, where it does not
        know the batch's size in advance: in TensorFlow's graphs.
        """
        graphs = BACKEND == "tensorflow" and not self.model.fit.eager
        return graphs and name.startswith("data_loss_")

    def _batches(self, data: Data) -> Iterator[tuple[Data, int]]:
        count, size = len(data.inputs[0]), self.model.fit.batch
        for first in range(0, count, size):
            last = min(first + size, count)
            yield data.part(first, last), last - first

    def _look(self, batch: Data) -> dict[str, Array]:
        return objective(self.model, self.weights, self.state, batch, False)[1]

    def _step(self, batch: Data) -> dict[str, Array]:
        def loss(values: list[Array]) -> tuple[Array, dict[str, Array]]:
            weights = {**self.weights, **dict(zip(self._trained, values, strict=True))}
            total, logs, after = objective(self.model, weights, self.state, batch, True)
            return total, {
                **{f"logs:{k}": v for k, v in logs.items()},
                **{f"after:{k}": v for k, v in after.items()},
            }

        values = [self.weights[name] for name in self._trained]
        rest, slopes = xp.grads(loss, values)
        for key, x in rest.items():
            what, _, name = key.partition(":")
            if what == "after":
                (self.weights if name in self.weights else self.state)[name] = x
        self._move(dict(zip(self._trained, slopes, strict=True)))
        return {k[5:]: x for k, x in rest.items() if k.startswith("logs:")}

    # -------------------------------------------------------------- the optimizer

    def _move(self, slopes: State) -> None:
        optimizer, every = self.model.optimizer, self.model.optimizer.accumulation or 1
        self.passes += 1
        taken = self.passes % every == 0
        before = dict(self.state)
        if optimizer.kind == "penalizing":
            for address, strengths in self._optimizer_strengths():
                for p, s in zip(optimizer.penalties[address], strengths, strict=True):
                    weight = self.weights[address]
                    fn = lambda xs, p=p: (formulas.value(p, xs[0]), {})  # noqa: E731
                    slope = xp.grads(fn, [weight])[1][0]
                    slopes[address] = slopes[address] + s * slope
        self._sums = {n: self._sums[n] + g for n, g in slopes.items()}
        if not taken:
            self.state = before
            return
        proximal = optimizer.kind == "proximal"
        present = dict(self._optimizer_strengths()) if proximal else {}
        for name, total in self._sums.items():
            step = optimizer.rate * total / float(every)
            self.weights[name] = self.weights[name] - step
        for address, strengths in present.items():
            ts = [optimizer.rate * s for s in strengths]
            self.weights[address] = formulas.prox(
                optimizer.penalties[address], self.weights[address], ts
            )
        self._sums = {n: 0.0 * x for n, x in self._sums.items()}
        self.steps += 1

    def _optimizer_strengths(self) -> Iterator[tuple[str, list[Array]]]:
        """The strengths for a step from the present weights; targets move by it."""
        for address, penalties in self.model.optimizer.penalties.items():
            weight, found = self.weights[address], []
            for i, p in enumerate(penalties):
                key, s = f"optimizer/{address}/{i}", p.strength
                now = self.state[key]
                if s.kind == "target":
                    error = formulas.target_error(
                        s, formulas.value(p, weight), [weight]
                    )
                    change = s.args["rate"] * error
                    found.append(
                        formulas.target_moved(s, now, s.args["damping"] * change)
                    )
                    self.state[key] = formulas.target_moved(s, now, change)
                elif s.kind == "constant":
                    found.append(now)
                else:
                    found.append(xp.array(formulas.at_step(s, self.steps, True)))
            yield address, found

    def _optimizer_logs(self) -> Iterator[tuple[str, float]]:
        """What `LogTerms` adds: strength × penalty of the weights after the epoch."""
        for term in terms.by_optimizer(self.model):
            s = term.strength
            moves = s.kind not in ("constant", "target")
            now = self.state[term.key]
            if moves:
                now = xp.array(formulas.at_step(s, self.steps, training=False))
            value = formulas.value(term.penalty, self.weights[term.weight])
            name = f"{term.weight.replace('/', '_')}_{term.penalty.kind}"
            yield f"*{name}", float(xp.numpy(now * value))
            if s.kind != "constant":
                yield f"*{name}_strength", float(xp.numpy(now))

    def numpy_weights(self) -> dict[str, np.ndarray]:
        """All weights, as they are now."""
        return {name: xp.numpy(w) for name, w in self.weights.items()}
