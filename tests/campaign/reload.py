"""A trained case in a fresh process: `save` here, `verify` there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from campaign import limits
from campaign.arrays import BACKEND
from campaign.build import Built, compile_model
from campaign.check import evaluate, run_fit
from campaign.data import data_of
from campaign.describe import Model, from_json, to_json
from campaign.outcome import BOUNDS

Results = dict[str, np.ndarray]


def save(folder: Path, number: int, model: Model, built: Built) -> None:
    """Save a trained model, and what it then predicts, loses and learns."""
    stem = str(folder / f"{number:04d}")
    built.model.save(f"{stem}.keras")
    case = {"model": json.loads(to_json(model)), "kinds": built.kinds}
    Path(f"{stem}.json").write_text(json.dumps(case))
    np.savez(f"{stem}.npz", **results(built, model, step=True))


def results(built: Built, model: Model, step: bool) -> Results:
    """Predictions, the logs of an evaluation, and the weights after more training."""
    inputs = built.data.inputs
    x = inputs[0] if len(inputs) == 1 else inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = built.model.predict(x, batch_size=model.fit.batch, verbose=0)
    flat = keras.tree.flatten(predicted)
    found = {f"prediction {i}": p for i, p in enumerate(flat)}
    found |= {f"evaluate {k}": v for k, v in evaluate(built, model).items()}
    if step:
        history = run_fit(built, model, built.data, 1)
        found |= {f"next fit {k}": v for k, v in history.items()}
        weights = built.model.get_weights()
        found |= {f"next weight {i:03d}": w for i, w in enumerate(weights)}
    return {k: _plain(v) for k, v in found.items()}


def _plain(x: Any) -> np.ndarray:
    """Float32 in place of bfloat16, which a file of NumPy's does not know."""
    x = np.asarray(x)
    return x.astype("float32") if x.dtype.name == "bfloat16" else x


def verify(folder: Path, same_backend: bool) -> list[dict[str, Any]]:
    """Load each file of a folder, and compare with what was noted beside it.

    On the backend that saved it: to the last bit, the next steps too. On another one:
    predictions and losses within the bounds.
    """
    found = []
    for path in sorted(folder.glob("*.keras")):
        case = json.loads(path.with_suffix(".json").read_text())
        model = from_json(json.dumps(case["model"]))
        with np.load(path.with_suffix(".npz")) as noted:
            right = {k: noted[k] for k in noted.files}
        # What saved it may be able to do what this backend is not: see `limits`.
        if not same_backend and limits.reason(_as_here(model), BACKEND):
            continue
        try:
            faults = _verified(path, model, case["kinds"], right, same_backend)
        except Exception as error:  # whatever it is, it is a finding
            faults = [f"{type(error).__name__}: {str(error)[:500]}"]
        found.append({"number": path.stem, "faults": faults, "values": len(right)})
    return found


def _as_here(model: Model) -> Model:
    """The case in modes that this backend has."""
    jit: Any = "auto" if BACKEND == "torch" else model.fit.jit
    steps = 1 if BACKEND == "torch" else model.fit.steps
    return replace(model, fit=replace(model.fit, jit=jit, steps=steps))


def _verified(
    path: Path, model: Model, kinds: list[str], right: Results, same: bool
) -> list[str]:
    # A model itself has the global policy, which Keras does not save as its layers'.
    keras.config.set_dtype_policy(model.fit.policy)
    loaded = keras.saving.load_model(path, compile=same)
    if not same:
        model = _as_here(model)
        compile_model(loaded, model)
    keras.config.set_dtype_policy("float32")
    came = results(Built(loaded, {}, data_of(model, kinds), kinds), model, step=same)
    if same:
        if set(came) != set(right):
            return [f"other values: {sorted(set(came) ^ set(right))}"]
        pairs = ((k, came[k], right[k]) for k in right)
        return [f"{k} differs" for k, a, b in pairs if not _same_bits(a, b)]
    faults = []
    relative, absolute = BOUNDS[model.fit.policy]
    for key, b in right.items():
        if not key.startswith(("prediction", "evaluate")):
            continue
        if key not in came:
            faults.append(f"no {key}")
            continue
        a, b = came[key].astype("float64"), b.astype("float64")
        bound = absolute + relative * np.max(np.abs(b), initial=0.0)
        if not np.max(np.abs(a - b), initial=0.0) <= bound:
            faults.append(f"{key}: {a.reshape(-1)[:3]}, not {b.reshape(-1)[:3]}")
    return faults


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def in_fresh_process(folder: Path, backend: str, same: bool) -> list[dict[str, Any]]:
    """`verify` in a new process on a backend."""
    command = [sys.executable, "-m", "campaign", "verify", str(folder)]
    command += ["--same"] if same else []
    result = subprocess.run(
        command,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        faults = [f"the process failed: {result.stderr[-800:]}"]
        return [{"number": "all", "faults": faults, "values": 0}]
    found: list[dict[str, Any]] = json.loads(result.stdout.strip().splitlines()[-1])
    return found
