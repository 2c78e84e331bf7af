"""Does a model that a fresh process loads do the same, also when it trains on?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_penalties.files import replacing

SOURCE = """
import sys
from pathlib import Path
from keras_penalties.demo.reload import compare
compare(Path(sys.argv[1]))
"""
ROUNDING = 1e-4
"""What rounding may do on a GPU. On a CPU the differences are 0."""


def differences(model: keras.Model, folder: Path) -> dict[str, float]:
    """By how much a fresh process differs from this one with the same saved model.

    Both compute the same things. To do so `model` is trained one step further.

    Args:
        model: The model as it was saved.
        folder: Has `model.keras` and the data, `digits.npz`.

    Raises:
        RuntimeError: if the fresh process fails, or a difference is no rounding.
    """
    x = np.load(folder / "digits.npz")["x"]
    expected: Any = behaviour(model, x)
    with replacing(folder / "expected.npz") as new:
        np.savez_compressed(new, **expected)
    finished = subprocess.run(
        [sys.executable, "-c", SOURCE, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        check=False,
    )
    (folder / "expected.npz").unlink()
    if finished.returncode:
        raise RuntimeError(f"The fresh process failed: {finished.stderr[-2000:]}")
    found: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    if not max(found.values()) <= ROUNDING:  # a NaN is no rounding either
        raise RuntimeError(f"The reloaded model differs: {found}")
    return found


def compare(folder: Path) -> None:
    """In the fresh process: load the model, and print the differences as JSON."""
    model = keras.saving.load_model(folder / "model.keras")
    expected = np.load(folder / "expected.npz")
    found = behaviour(model, np.load(folder / "digits.npz")["x"])
    print(json.dumps({name: _largest(x, expected[name]) for name, x in found.items()}))


def behaviour(model: keras.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """What must be equal after a reload. The last entry needs the optimizer's state."""
    options = {"batch_size": len(x), "verbose": 0}
    predictions = model.predict(x, **options)
    logs = model.evaluate(x, x, return_dict=True, **options)
    model.train_on_batch(x, x)
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    return {
        "predictions": predictions,
        "loss and terms": np.asarray([logs[name] for name in sorted(logs)]),
        "weights after one more step": weights,
    }


def sentence(found: dict[str, float]) -> str:
    """The differences in words."""
    verdict = "different by rounding" if any(found.values()) else "the same"
    each = ", ".join(f"{name} {value:g}" for name, value in found.items())
    return f"Reloaded in a fresh process: {verdict}. Largest differences: {each}."


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(abs(a.astype("float64") - b.astype("float64")).max())
