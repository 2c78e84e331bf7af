"""The cost of a start: the import, a saved model, the memory of a step."""

from __future__ import annotations

import contextlib
import resource
import sys
from functools import partial
from pathlib import Path

import keras
from bench_scaling import NONE, STRENGTH, hosts
from harness import Claim, interleaved, measured
from steps import BACKEND, classifier, fresh, random_batch

import keras_penalties as kp

IMPORTS = """
import time
start = time.perf_counter()
import keras
middle = time.perf_counter()
import keras_penalties
print(middle - start, time.perf_counter() - middle)
"""


def test_import(options, report):
    runs = [fresh("-c", IMPORTS) for _ in range(options.runs + 1)][1:]
    ours, bar = "import keras_penalties, after keras", "the bar, 60 ms"
    samples = {
        ours: [run[1] for run in runs],
        bar: [0.06 for _ in runs],
        "import keras": [run[0] for run in runs],
    }
    limit = None if BACKEND == "torch" else 1.0
    claims = [Claim(ours, bar, limit), Claim(ours, "import keras")]
    report(measured("Import", samples, claims))


PENALIZE = "L1 by penalize"
NAMES = (*hosts(), PENALIZE)


def perceptron(name, features, width):
    """With the penalty on every kernel, hosted as the name says."""
    dense = hosts().get(name, keras.layers.Dense)
    relu = partial(dense, width, activation="relu")
    model = classifier([keras.Input((features,)), relu(), relu(), dense(10)])
    rules = {"kernel": kp.penalties.L1(STRENGTH)}
    return kp.penalize(model, rules) if name == PENALIZE else model


def test_load_model(options, report, tmp_path):
    turns = {}
    for name in NAMES:
        path = tmp_path / f"{name}.keras"
        model = perceptron(name, options.features, options.width)
        model.optimizer.build(model.trainable_variables)
        model.save(path)
        turns[name] = partial(keras.saving.load_model, path)
    samples = interleaved(turns, options.rounds)
    bar = None if BACKEND == "torch" else 1.1
    claims = [Claim(name, NONE, bar) for name in turns if name != NONE]
    report(measured("load_model", samples, claims))


def test_peak_memory(options, report):
    """A fresh process each; layers are ten times as wide: weights fill the memory."""
    size = [str(n) for n in (options.features, 10 * options.width, options.batch)]
    samples = {name: [] for name in NAMES}
    for _ in range(options.runs):  # the memory of compilers differs by some MB
        for name, peaks in samples.items():
            peaks += fresh(__file__, name, *size)
    bar = None if BACKEND == "torch" else 1.05
    claims = [Claim(name, NONE, bar) for name in samples if name != NONE]
    report(measured("Peak memory of training steps", samples, claims, unit="MB"))


def peak_of_steps(name: str, features: int, width: int, batch: int) -> float:
    """The largest growth of the process in MB, from a small model to this one.

    The small one, penalised whatever is measured, has already brought what a backend
    loads, compilers too; its kernels are just large enough for them.
    """
    data, small = (random_batch(batch, n, 10) for n in (features, 300))
    perceptron("L1 in Penalized", 300, 300).train_on_batch(*small)
    before = memory("VmRSS")
    forget_peak()
    model = perceptron(name, features, width)
    for _ in range(3):
        model.train_on_batch(*data)
    return memory("VmHWM") - before


def memory(field: str) -> float:
    """MB, as Linux gives it. Other systems give only the peak, in another unit."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3


def forget_peak() -> None:
    """Set Linux's record of the peak, which a parent may have left, to what is now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    print(peak_of_steps(sys.argv[1], *map(int, sys.argv[2:])))
