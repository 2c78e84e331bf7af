"""What compact gains on digits: parameters, FLOPs and time, at which accuracy.

    python benchmarks/bench_compact.py [mlp | lenet | residual ...]

The time is of `predict_on_batch` on 256 images, the least of many runs, the two models
taking turns. On this small data a model must be wide before its arithmetic is what
takes the time, hence the widths here.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from compact_models import MODELS, compiled, digits, trained

import keras_penalties as kp

WIDTHS = {"mlp": 1024, "lenet": 64, "residual": 64}
BATCH, ROUNDS, EPOCHS = 256, 100, 20


def seconds(models, x):
    """The least time of each model, run in turns."""
    best = [np.inf] * len(models)
    for _ in range(ROUNDS):
        for i, model in enumerate(models):
            start = time.perf_counter()
            np.asarray(model.predict_on_batch(x))
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def accuracy(model, data):
    return model.evaluate(*data, verbose=0)[1]


def row(name):
    train, test = digits()
    width = WIDTHS[name]
    plain = compiled(MODELS[name][0](width))
    plain.fit(*train, batch_size=64, epochs=EPOCHS, verbose=0)
    model = trained(name, train, EPOCHS, width=width)
    small, found = kp.compact(model), kp.sparsity(model)
    before, after = seconds([model, small], train[0][:BATCH])
    at_once = accuracy(small, test)
    compiled(small, keras.optimizers.Adam(1e-3))
    small.fit(*train, batch_size=64, epochs=5, verbose=0)
    flops, gain = found.flops / found.compact_flops, before / after
    return [
        name,
        *(f"{a:.3f}" for a in (accuracy(plain, test), accuracy(model, test), at_once)),
        f"{accuracy(small, test):.3f}",
        f"{found.parameters:,} -> {found.compact_parameters:,}",
        f"{flops:.2f}x",
        f"{1e3 * before:.2f} -> {1e3 * after:.2f} ms",
        f"{gain:.2f}x, {gain / flops:.2f} of the FLOPs'",
    ]


def main(names):
    keras.utils.set_random_seed(0)
    accuracies = "plain | penalised | compact | tuned"
    print(f"model | {accuracies} | parameters | FLOPs | time | gain", flush=True)
    for name in names or MODELS:
        print(" | ".join(row(name)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
