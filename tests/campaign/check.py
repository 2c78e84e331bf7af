"""One case trained by Keras and recomputed: what differs by more than its bound."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import keras
import numpy as np

import keras_penalties as kp
from campaign.build import Built, build
from campaign.data import CLASS_WEIGHTS, Data
from campaign.describe import Model
from campaign.outcome import Outcome
from campaign.plain import plain
from campaign.recompute import Logs
from campaign.training import Training

SHAKE = 2.0**-21
"""Relative: four roundings of float32, as a few operations on a weight have them."""


DIVERGED = 100.0, 1e6
"""Where a weight or a log has grown to this size only the first step is compared."""


class Run(Protocol):
    """A training of a case: by Keras, or computed a second time."""

    def fit(self, data: Data, epochs: int) -> list[Logs]: ...
    def evaluate(self, data: Data) -> Logs: ...
    def numpy_weights(self) -> dict[str, np.ndarray]: ...


class KerasRun:
    """The training of a case by Keras."""

    def __init__(self, built: Built, model: Model) -> None:
        self.built, self.model = built, model

    def fit(self, data: Data, epochs: int) -> list[Logs]:
        """The logs of each epoch."""
        logs = run_fit(self.built, self.model, data, epochs)
        return [{k: v[epoch] for k, v in logs.items()} for epoch in range(epochs)]

    def evaluate(self, data: Data) -> Logs:
        """The logs of an evaluation."""
        return evaluate(self.built, self.model)

    def numpy_weights(self) -> dict[str, np.ndarray]:
        """All weights, as they are now."""
        variables = self.built.variables
        return {k: keras.ops.convert_to_numpy(v) for k, v in variables.items()}


def check(model: Model, outcome: Outcome | None = None) -> tuple[Outcome, Built]:
    """Train a case, recompute it, compare everything."""
    outcome = outcome or Outcome()
    built = build(model)
    came = KerasRun(built, model)
    start = came.numpy_weights()
    _compare(outcome, model, built.data, start, came)
    if outcome.beyond:
        apart = f"if the weights start {SHAKE:.1g} apart"
        outcome.excuse(shaken(model, built.data, start), 1.0, apart)
        outcome.judge(without_penalties(model)[0])
    return outcome, built


def shaken(model: Model, data: Data, start: dict[str, np.ndarray]) -> Outcome:
    """What the right values change by where each weight starts some roundings apart.

    A training whose values grow, or that takes differences, makes roundings larger.
    """
    found, rng = Outcome(), np.random.default_rng(0)
    moved = {
        k: w * (1 + SHAKE * rng.choice((-1, 1), w.shape)) for k, w in start.items()
    }
    _compare(found, model, data, start, Training(model, moved))
    return found


def without_penalties(model: Model) -> tuple[Outcome, Exception | None]:
    """What plain Keras makes of the case, and the error where it fails."""
    found, case = Outcome(), plain(model)
    try:
        built = build(case)
        came = KerasRun(built, case)
        _compare(found, case, built.data, came.numpy_weights(), came)
    except Exception as error:
        return found, error
    return found, None


def _compare(
    outcome: Outcome, model: Model, data: Data, start: dict[str, np.ndarray], came: Run
) -> None:
    """A training and the recomputed one, step by step."""
    fit, right = model.fit, Training(model, start)
    first = data.part(0, fit.batch)
    _logs(outcome, model, "first step", came.fit(first, 1), right.fit(first, 1))
    _gradients(outcome, model, start, came, right)
    logs, expected = came.fit(data, fit.epochs), right.fit(data, fit.epochs)
    if _diverged(right, expected):
        return
    _logs(outcome, model, "fit", logs, expected)
    _weights(outcome, model, came, right)
    found = right.evaluate(data)
    found = {k: v for k, v in found.items() if not k.startswith("*")}
    _logs(outcome, model, "evaluate", [came.evaluate(data)], [found])


def _diverged(right: Training, logs: list[Logs]) -> bool:
    """Whether weights that start at a size of 1 have exploded: roundings do so too."""
    weight, log = DIVERGED
    shown = [x for epoch in logs for x in epoch.values()]
    weights = right.numpy_weights().values()
    small = all(np.all(np.abs(w) < weight) for w in weights)
    return not (small and all(abs(x) < log for x in shown))


def run_fit(
    built: Built, model: Model, data: Data, epochs: int
) -> dict[str, list[float]]:
    """`fit`, and its history."""
    callbacks = [kp.callbacks.LogTerms()] if model.optimizer.kind != "sgd" else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = built.model.fit(
            _one(data.inputs),
            _one(data.targets),
            sample_weight=_weights_of(data),
            class_weight=CLASS_WEIGHTS if model.fit.class_weight else None,
            batch_size=model.fit.batch,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    return history.history


def evaluate(built: Built, model: Model) -> dict[str, float]:
    """`evaluate`, and its logs."""
    data = built.data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return built.model.evaluate(
            _one(data.inputs),
            _one(data.targets),
            sample_weight=_weights_of(data),
            batch_size=model.fit.batch,
            verbose=0,
            return_dict=True,
        )


def _weights_of(data: Data) -> Any:
    return None if data.weights[0] is None else _one(data.weights)


def _one(things: list[Any]) -> Any:
    return things[0] if len(things) == 1 else things


def _logs(
    outcome: Outcome, model: Model, when: str, came: list[Logs], right: list[Logs]
) -> None:
    """Every log of every epoch, none missing and none too many."""
    for epoch, (ours, logs) in enumerate(zip(came, right, strict=True)):
        left = _renamed(ours, model)
        for name in sorted(logs):
            found = _key(left, name)
            if found is None:
                outcome.faults.append(f"{when}: no log '{name}' among {sorted(left)}")
                continue
            what = "totals" if name == "loss" else "logs"
            label, x = f"{when}, epoch {epoch}, {name}", left.pop(found)
            outcome.compare(what, label, x, logs[name], model.fit.policy)
        slots = _slot_terms(model)
        extra = [n for n in left if not any(n.endswith(s) for s in slots)]
        if extra:
            outcome.faults.append(f"{when}: unexpected logs {sorted(extra)}")


def _renamed(came: Logs, model: Model) -> Logs:
    """The logs of the outputs' losses under the names that the recomputation has.

    Keras names outputs that have no names by their losses, so that two losses of a kind
    share one log: of a subclassed model these are not compared.
    """
    places = {call.output: call.layer for call in model.graph.calls}
    heads = [model.graph.layer(places[name]) for name in model.graph.outputs]
    if len(heads) < 2:
        return dict(came)
    if model.style == "subclassed":
        return {k: v for k, v in came.items() if k == "loss" or k[-5:] != "_loss"}
    called = [f"penalized_{x.name}" if x.penalized else x.name for x in heads]
    names = {f"{name}_loss": f"data_loss_{i}" for i, name in enumerate(called)}
    return {names.get(k, k): v for k, v in came.items()}


def _key(came: dict[str, Any], name: str) -> str | None:
    """The log's name; of an optimizer's term, the one that ends so."""
    if name in came or not name.startswith("*"):
        return name if name in came else None
    found = [
        n for n in came if n.endswith(name[1:]) or _without_cell(n).endswith(name[1:])
    ]
    return found[0] if len(found) == 1 else None


def _without_cell(name: str) -> str:
    return name.replace("_lstm_cell", "")


def _slot_terms(model: Model) -> list[str]:
    """`LogTerms` shows Keras' slots beside an optimizer's terms: not compared."""
    if model.optimizer.kind == "sgd":
        return []
    return [p.kind for x in model.graph.everywhere() for p in x.slots.values()]


def _gradients(
    outcome: Outcome,
    model: Model,
    start: dict[str, np.ndarray],
    came: Run,
    right: Training,
) -> None:
    """What one step of SGD says of each gradient."""
    if (model.optimizer.accumulation or 1) > 1 or model.optimizer.kind == "proximal":
        return
    policy, rate = model.fit.policy, model.optimizer.rate
    ours, after = (_slopes(start, run.numpy_weights(), rate) for run in (came, right))
    # Many gradients are a small rest of what a layer's larger ones are made of.
    size = max((float(np.max(np.abs(x))) for x in after.values()), default=0.0)
    for name in ours:
        # Weights of size 1 and a rate of 0.1: a rounding of the weight is 10 of them.
        label = f"gradient of {name}"
        outcome.compare("gradients", label, ours[name], after[name], policy, size)


def _slopes(
    start: dict[str, np.ndarray], weights: dict[str, np.ndarray], rate: float
) -> dict[str, np.ndarray]:
    """The gradients of one step of SGD; statistics that move have none."""
    names = [n for n in start if "/moving_" not in n and n in weights]
    return {n: (start[n] - weights[n]) / rate for n in names}


def _weights(outcome: Outcome, model: Model, came: Run, right: Training) -> None:
    after = right.numpy_weights()
    for name, weight in came.numpy_weights().items():
        outcome.compare(
            "weights", f"weight {name}", weight, after[name], model.fit.policy
        )
