"""What `penalize` keeps and what it adds, by hand, for a case of `existing_models`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import keras
import numpy as np
from existing_models import Case

import keras_penalties as kp

RATE = 0.05
RELOAD = """
import json, pickle, sys, keras, keras_penalties
import existing_models
from penalized_proof import outcome
for name in sys.stdin.read().split():
    model = keras.saving.load_model(name + ".keras")
    with open(name + ".pickle", "rb") as file:
        x, y = pickle.load(file)
    print("OUTCOME", json.dumps([name, outcome(model, x, y)]))
"""


def array(x: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


def total(squares: list[tuple[Any, float]]) -> float:
    """`Σ strength·Σ w²` in NumPy."""
    sums = [s * np.sum(np.square(array(w), dtype="float64")) for w, s in squares]
    return float(sum(sums))


def loss_of(model: Any, x: Any, y: Any) -> float:
    loss: float = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    return loss


def step(model: Any, x: Any, y: Any) -> float:
    """One step of training; the loss before it.

    On torch Keras does not clear the gradients of a model in a model in a model, so
    that these weights also take the steps before once more, in any model.
    """
    if keras.backend.backend() == "torch":
        for weight in model.weights:
            weight.value.grad = None
    loss: float = model.train_on_batch(x, y, return_dict=True)["loss"]
    return loss


def outcome(model: Any, x: Any, y: Any) -> list[float]:
    """The loss before and after a step, which a model must reach again elsewhere."""
    before = loss_of(model, x, y)
    step(model, x, y)
    return [before, loss_of(model, x, y)]


def check_same_model(plain: Any, model: Any, x: Any) -> None:
    """Names, paths, outputs and predictions."""
    assert [layer.name for layer in model.layers if layer in plain.layers] == [
        layer.name for layer in plain.layers
    ]
    assert all(a is b for a, b in zip(model.weights, plain.weights, strict=False))
    if hasattr(plain, "output_names"):
        assert model.output_names == plain.output_names
    assert model.name == plain.name
    keras.tree.map_structure(
        np.testing.assert_array_equal,
        keras.tree.map_structure(array, model(x)),
        keras.tree.map_structure(array, plain(x)),
    )


def check(case: Case, tolerance: float = 1e-5) -> Any:
    """The total and one step, against NumPy; the penalised model comes back."""
    plain, x, y = case.model, case.x, case.y
    sgd = keras.optimizers.SGD(RATE)
    plain.compile(sgd, case.loss, loss_weights=case.loss_weight)
    model = kp.penalize(plain, case.rules)
    assert model.optimizer is plain.optimizer
    check_same_model(plain, model, x)

    start = [keras.ops.convert_to_numpy(v).copy() for v in plain.variables]
    gradients = {id(w): 2 * s * array(w) for w, s in case.squares}
    added = total(case.squares)
    data = step(plain, x, y)
    expected = [array(w) - RATE * gradients.get(id(w), 0.0) for w in plain.weights]
    for variable, value in zip(plain.variables, start, strict=True):
        variable.assign(value)
    both = step(model, x, y)
    np.testing.assert_allclose(both, data + added, rtol=tolerance)
    for weight, right in zip(plain.weights, expected, strict=True):
        np.testing.assert_allclose(array(weight), right, rtol=1e-4, atol=tolerance)
    return model


def check_reload(
    models: dict[str, tuple[Any, Any, Any]], folder: Any, run: Any
) -> None:
    """In a fresh process the same losses, before and after a step."""
    import pickle

    expected = {}
    for name, (model, x, y) in models.items():
        model.save(folder / f"{name}.keras")
        (folder / f"{name}.pickle").write_bytes(pickle.dumps((x, y)))
        expected[name] = outcome(model, x, y)
    printed = run(RELOAD, stdin="\n".join(models), PYTHONPATH=os.pathsep.join(sys.path))
    lines = [line for line in printed.splitlines() if line.startswith("OUTCOME")]
    found = dict(json.loads(line[len("OUTCOME") :]) for line in lines)
    assert set(found) == set(expected)
    for name, losses in expected.items():
        np.testing.assert_allclose(found[name], losses, rtol=1e-5, err_msg=name)
