"""Interrupted training goes on as if nothing had been: the same to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import BACKEND

import keras_penalties as kp

TESTS = str(Path(__file__).parent)
EPOCHS, STEPS, BATCH = 10, 4, 10
X = np.random.default_rng(0).random((STEPS * BATCH, 6)).astype("float32")


def moving_model():
    """A ramp, targets on a weight and on an output, and Proximal with both."""
    keras.utils.set_random_seed(3)
    ramp = kp.strengths.LinearRamp(0.0, 0.1, steps=60)
    dense = keras.layers.Dense(8, activation="sigmoid", name="encoder")
    encoder = kp.layers.Penalized(
        dense,
        weights={
            "kernel": kp.penalties.L2(ramp)
            + kp.penalties.L1(kp.Target(5.0, rate=1e-3)),
        },
        outputs=kp.penalties.L1(kp.Target(0.3, of="mean", kind="==")),
    )
    code = kp.layers.ActivityPenalty("kl_sparsity(0.1)", momentum=0.9, name="code")
    model = keras.Sequential(
        [keras.Input((6,)), encoder, code, keras.layers.Dense(6, name="decoder")]
    )
    few = kp.Target(0.5, of="density", initial=1e-3, rate=0.05, relative=True)
    sparse = kp.optimizers.Proximal(
        keras.optimizers.Adam(0.01),
        {"decoder/kernel": kp.penalties.L1(few), "decoder/bias": kp.penalties.L1(ramp)},
    )
    model.compile(sparse, "half_sum_squared_error")
    return model


def fitted(model, first, last, callbacks=()):
    history = model.fit(
        X,
        X,
        batch_size=BATCH,
        initial_epoch=first,
        epochs=last,
        validation_data=(X[:7], X[:7]),
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return dict(history.history)


def state(model):
    """Every weight, the optimizer's too, and every strength."""
    variables = [*model.weights, *model.optimizer.variables]
    weights = [np.asarray(keras.ops.convert_to_numpy(v)).tolist() for v in variables]
    return [weights, [t.strength for t in kp.terms(model)]]


def whole():
    """What it comes to without an interruption."""
    model = moving_model()
    history = fitted(model, 0, EPOCHS)
    return history, state(model)


class KillAt(keras.callbacks.Callback):
    """Kills the process before a step, with no chance to clean up."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), 9)


def run(call):
    """A call of a function of this module in a fresh process: its status and result."""
    source = f"import json, test_resume as t; print('RESULT', json.dumps(t.{call}))"
    result = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": TESTS},
        check=False,
    )
    found = [s for s in result.stdout.splitlines() if s.startswith("RESULT")]
    if result.returncode > 0:
        pytest.fail(result.stderr[-3000:])
    return result.returncode, json.loads(found[0][6:]) if found else None


def resumed(path):
    model = keras.saving.load_model(path)
    history = fitted(model, EPOCHS // 2, EPOCHS)
    return history, state(model)


def backed_up(folder, kill=None):
    model = moving_model()
    callbacks = [keras.callbacks.BackupAndRestore(folder)]
    if kill is not None:
        callbacks.append(KillAt(kill))
    history = fitted(model, 0, EPOCHS, callbacks)
    return history, state(model)


@pytest.fixture(scope="module")
def uninterrupted():
    return json.loads(json.dumps(whole()))


def tail(history, first):
    return {name: values[first:] for name, values in history.items()}


def test_what_it_trains_does_move(uninterrupted):
    """Else the rest of this file would prove little."""
    history, _ = uninterrupted
    moving = [n for n in history if "strength" in n and not n.startswith("val_")]
    assert len(moving) == 3
    assert all(len(set(history[name])) == EPOCHS for name in moving)
    model = moving_model()
    start, end = state(model)[1], uninterrupted[1][1]
    changed = [a != b for a, b in zip(start, end, strict=True)]
    assert changed == [True, True, True, False, True, True]  # all but the constant


def test_saved_and_loaded_in_a_fresh_process(tmp_path, uninterrupted):
    model = moving_model()
    first = fitted(model, 0, EPOCHS // 2)
    model.save(tmp_path / "half.keras")
    _, (second, end) = run(f"resumed({str(tmp_path / 'half.keras')!r})")
    history, expected_end = uninterrupted
    assert {n: v[: EPOCHS // 2] for n, v in history.items()} == first
    assert second == tail(history, EPOCHS // 2)
    assert end == expected_end


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 18])
def test_backup_and_restore_after_a_hard_kill(tmp_path, uninterrupted, step):
    """Keras saves after each epoch: the one in which it was killed is done again."""
    status, _ = run(f"backed_up({str(tmp_path)!r}, kill={step})")
    assert status == -9
    _, (history, end) = run(f"backed_up({str(tmp_path)!r})")
    expected, expected_end = uninterrupted
    assert history == tail(expected, step // STEPS)
    assert end == expected_end
