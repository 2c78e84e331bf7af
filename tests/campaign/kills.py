"""Training that is killed at random moments and resumed by BackupAndRestore.

A training is killed some times and resumed each time, until it ends: each epoch's logs
and the weights at the end must be those of a training that nobody disturbed, to the
last bit. Half of the kills come at any moment, the other half while the backup is
written. What Keras itself can lose then is in `LIMITS`, and is counted by name.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_penalties as kp
from campaign import part

EPOCHS, STEPS, BATCH = 8, 4, 10
X = np.random.default_rng(0).random((STEPS * BATCH, 6)).astype("float32")
PAUSE = 0.01
"""Seconds of sleep before a step: else nearly all kills would hit the compilation."""
SAVING = 0.06
"""Seconds after the end of an epoch within which the backup is written."""
HANGS = 120
"""Seconds without a word after which a training hangs."""
LIMITS = {
    "later weights": "killed between the backup's weights and its epoch number: Keras "
    "repeats an epoch that the weights have already seen, and says nothing",
    "empty epoch number": "killed while the epoch number was written: JSONDecodeError "
    "on each later start, with double_checkpoint too",
    "half a backup": "killed while the weights were written, and HDF5 opens the file "
    "but can't read it: RuntimeError or KeyError, and the previous backup is not tried",
    "first backup torn": "killed while the first backup was written, so that there is "
    "no previous one: OSError on each later start",
    "half removed": "killed at the end of training, while the backup is removed",
}


class ResumedDropout(keras.layers.Dropout):
    """Dropout with its random state in the file, where Keras' own starts again.

    With a seed: on torch Keras else draws from torch's global random numbers.
    """

    def save_own_variables(self, store: Any) -> None:
        store["random"] = keras.ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Any) -> None:
        self.seed_generator.state.assign(store["random"])


def model() -> keras.Model:
    """A ramp, a lazy strength, targets, running means, dropout, and Proximal."""
    keras.utils.set_random_seed(3)
    ramp = kp.strengths.LinearRamp(0.0, 0.1, steps=20)
    weight = kp.penalties.L2(ramp) + kp.penalties.L1(kp.Target(5.0, rate=1e-3))
    code = kp.penalties.L1(kp.Target(0.3, of="mean", kind="=="))
    dense = keras.layers.Dense(8, activation="sigmoid", name="encoder")
    lazy = kp.penalties.L2(kp.strengths.Lazy(0.1, every=3))
    built = keras.Sequential(
        [
            keras.Input((6,)),
            kp.layers.Penalized(dense, weights={"kernel": weight}, outputs=code),
            kp.layers.ActivityPenalty("kl_sparsity(0.1)", momentum=0.9, name="code"),
            ResumedDropout(0.3, seed=7),
            kp.layers.Penalized(keras.layers.Dense(6, name="decoder"), {"bias": lazy}),
        ]
    )
    few = kp.Target(0.5, of="density", initial=1e-3, rate=0.05, relative=True)
    rules = {"decoder/kernel": kp.penalties.L1(few)}
    sparse = kp.optimizers.Proximal(keras.optimizers.Adam(0.01), rules)
    built.compile(sparse, "half_sum_squared_error")
    return built


class Watched(keras.callbacks.Callback):
    """Tells the parent process where the training is. The backup comes after it."""

    def __init__(self, parent: Connection) -> None:
        super().__init__()
        self.parent, self.started = parent, False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.started:
            self.started = True
            self.parent.send(("start", epoch, int(self.model.optimizer.iterations)))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        time.sleep(PAUSE)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.parent.send(("epoch", epoch, {k: float(v) for k, v in logs.items()}))


def train(folder: str, parent: Connection) -> None:
    """One process: from the backup, if there is one, to the end, or to the kill."""
    built = model()
    backup = keras.callbacks.BackupAndRestore(folder, double_checkpoint=True)
    fixed = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    try:
        built.fit(X, X, callbacks=[Watched(parent), backup], **fixed)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        parent.send(("refused", type(error).__name__, str(error)[:300]))
        return
    digest = hashlib.sha256()
    for variable in [*built.weights, *built.optimizer.variables]:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    strengths = [term.strength for term in kp.terms(built)]
    parent.send(("end", digest.hexdigest(), strengths))


@dataclass
class Attempt:
    """What one process sent before its end, or before it was killed."""

    start: tuple[int, int] | None = None
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    end: tuple[Any, ...] | None = None
    refused: tuple[str, str] | None = None
    killed: bool = False
    saving: bool = False

    def take(self, message: tuple[Any, ...]) -> None:
        """Keep a message."""
        kind, *rest = message
        if kind == "epoch":
            self.epochs[rest[0]] = rest[1]
        else:
            setattr(self, kind, tuple(rest))


def attempted(
    folder: Path, *, after_epochs: int | None = None, delay: float | None = None
) -> Attempt:
    """Train in a new process, which is killed if a delay is given.

    Args:
        folder: Where the backup lies.
        after_epochs: How many epochs end before the delay starts. Default: the delay
            starts with the process.
        delay: Seconds. Default None: no kill.
    """
    found = Attempt(saving=after_epochs is not None)
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=train, args=(str(folder), there))
    process.start()
    there.close()
    try:
        while after_epochs is not None and len(found.epochs) < after_epochs:
            found.take(_next(here))
        if delay is not None:
            time.sleep(delay)
            process.kill()
        while True:
            found.take(_next(here))
    except EOFError:
        process.join()
    finally:
        process.kill()
    found.killed = process.exitcode == -9
    return found


def _next(sender: Connection) -> tuple[Any, ...]:
    """The next message; EOFError after the last one, also if that was cut off."""
    if not sender.poll(HANGS):
        raise TimeoutError(f"a training said nothing for {HANGS} seconds")
    return sender.recv()


_CONTEXT = multiprocessing.get_context("forkserver")


def limit(attempt: Attempt, before: set[str]) -> str | None:
    """The limit of Keras that an attempt met, by the files that it started with."""
    if attempt.refused and attempt.refused[0] == "JSONDecodeError":
        return "empty epoch number"
    if attempt.refused and attempt.refused[0] in ("RuntimeError", "KeyError"):
        return "half a backup"
    if attempt.refused and attempt.refused[0] == "OSError":
        return None if "latest.weights.h5.bkp" in before else "first backup torn"
    if "training_metadata.json" in before and "latest.weights.h5" not in before:
        return "half removed"
    if attempt.start and attempt.start[1] != attempt.start[0] * STEPS:
        return "later weights"
    return None


def difference(attempt: Attempt, right: Attempt) -> str | None:
    """What is not as in the training that nobody disturbed."""
    if attempt.refused:
        return f"refused to resume: {attempt.refused}"
    for epoch, logs in attempt.epochs.items():
        if logs != right.epochs[epoch]:
            both = {k: (v, right.epochs[epoch].get(k)) for k, v in logs.items()}
            return (
                f"epoch {epoch}: { ({k: v for k, v in both.items() if v[0] != v[1]}) }"
            )
    if attempt.end and attempt.end != right.end:
        return "the weights or strengths at the end"
    if not attempt.killed and attempt.end is None:
        return "the process ended with no result"
    return None


def run(count: int, seed: int) -> part.Figures:
    """Kill `count` times, and compare what each process after a kill computes."""
    # The server imports Keras once, and forks for each process: a start takes no time.
    _CONTEXT.set_forkserver_preload(["keras_penalties"])
    rng, begun = random.Random(seed), time.time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "backup"
        right = attempted(folder)
        again = time.time()
        assert attempted(folder).end == right.end, "a training is not repeatable"
        seconds = time.time() - again
        figures: part.Figures = {
            "backend": keras.backend.backend(),
            "kills": 0,
            "while saving": 0,
            "trainings": 0,
            "resumed in": [0] * EPOCHS,
            "limits": {},
            "wrong": [],
        }
        while figures["kills"] < count:
            figures["trainings"] += 1
            kills = min(rng.randint(2, 6), count - figures["kills"])
            _chain(folder, kills, right, seconds, rng, figures)
            shutil.rmtree(folder, ignore_errors=True)
    figures["equal"] = count - sum(figures["limits"].values()) - len(figures["wrong"])
    figures["seconds"] = round(time.time() - begun)
    return figures


def _chain(
    folder: Path,
    kills: int,
    right: Attempt,
    seconds: float,
    rng: random.Random,
    figures: part.Figures,
) -> None:
    """One training, killed that many times unless it ends before."""
    seen: set[int] = set()
    while True:
        before = {path.name for path in folder.glob("*")}
        aim: dict[str, Any] = {}
        if kills > 0:
            aim = {"delay": rng.uniform(0.0, seconds)}
            if rng.random() < 0.5:
                after = rng.randint(1, 3)
                aim = {"after_epochs": after, "delay": rng.uniform(0.0, SAVING)}
        attempt = attempted(folder, **aim)
        seen |= attempt.epochs.keys()
        if attempt.killed:
            kills -= 1
            figures["kills"] += 1
            figures["while saving"] += attempt.saving
        if attempt.start:
            figures["resumed in"][attempt.start[0]] += 1
        if (name := limit(attempt, before)) is not None:
            figures["limits"][name] = figures["limits"].get(name, 0) + 1
            return
        if (wrong := difference(attempt, right)) is not None:
            figures["wrong"].append(wrong)
            return
        if not attempt.killed:
            if seen != set(range(EPOCHS)):
                figures["wrong"].append(f"only the epochs {sorted(seen)} were trained")
            return


if __name__ == "__main__":
    from campaign import kills  # under its own name, which other processes know

    sys.exit(part.main(kills.run, __doc__))
