"""Five tasks without forgetting, by elastic weight consolidation (EWC).

Need: a net that learns one task after the other, and keeps what it knows. Data: 10,000
images of Fashion-MNIST; each task shuffles the pixels in an order of its own. Ours: EWC
(Kirkpatrick et al., PNAS 2017): an anchor for each task that is done, weighed by
`kp.fisher`, on a model by `penalize`. Rivals: no penalty, and L2-SP (Li et al., ICML
2018), which holds all weights alike near to the start of each task. Bar: the mean
accuracy on all five tasks after the last is above that of no penalty by 0.15, and above
that of L2-SP by 0.04, over five seeds.

The strengths of both, and the epochs, are chosen with orders, seeds and images of their
own.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from data import Split, fashion
from frame import COLOURS, Bar, Result, main, spread

import keras_penalties as kp

TASKS, IMAGES, EPOCHS = 5, 10_000, 8
EWC = (50.0, 200.0, 600.0)
L2_SP = (0.01, 0.02, 0.04)
TUNING_SEEDS = (100, 101)


def ours(tasks: Sequence[Split], strength: float, fisher: bool = True) -> np.ndarray:
    """Train on each task in turn: the accuracy on every task, a row after each."""
    net, rows = dense_net(), []
    anchors: list[dict[str, Any]] = []
    for task in tasks:
        net.compile("adam", "sparse_categorical_crossentropy")
        model = kp.penalize(net, held(anchors, strength), log=False) if anchors else net
        model.fit(task.x, task.y, batch_size=100, epochs=EPOCHS, verbose=0)
        rows.append([accuracy(net, each) for each in tasks])
        if strength and len(rows) < len(tasks):
            sample = task.x[:500], task.y[:500]
            matters = kp.fisher(net, sample) if fisher else dict.fromkeys(paths(net))
            now = {path: (values(net, path), matters[path]) for path in matters}
            anchors = [*anchors, now] if fisher else [now]
    return np.array(rows)


def held(anchors: Sequence[dict[str, Any]], strength: float) -> dict[str, Any]:
    """For each weight a penalty that sums those of the tasks that are done."""
    rules = {}
    for path in anchors[0]:
        near = (kp.penalties.ToReference(strength, *a[path]) for a in anchors)
        rules[path] = functools.reduce(operator.add, near)
    return rules


def dense_net() -> keras.Model:
    x = images = keras.Input((784,))
    for _ in range(2):
        x = keras.layers.Dense(256, "relu")(x)
    return keras.Model(images, keras.layers.Dense(10, "softmax")(x))


def paths(net: keras.Model) -> list[str]:
    return [weight.path for weight in net.trainable_weights]


def values(net: keras.Model, path: str) -> np.ndarray:
    (weight,) = (w for w in net.trainable_weights if w.path == path)
    return np.array(keras.ops.convert_to_numpy(weight))


def accuracy(net: keras.Model, task: Split) -> float:
    found = keras.ops.convert_to_numpy(net(task.x_test)).argmax(axis=1)
    return float(np.mean(found == task.y_test))


def permuted(data: Split, seed: int) -> Iterator[Split]:
    """The tasks: the first has the pixels in their own order."""
    rng = np.random.default_rng(seed)
    for number in range(TASKS):
        order = rng.permutation(784) if number else np.arange(784)
        yield Split(data.x[:, order], data.y, data.x_test[:, order], data.y_test)


def run(data: Split, seed: int, strength: float, fisher: bool = True) -> np.ndarray:
    keras.utils.set_random_seed(seed)
    return ours(list(permuted(data, seed)), strength, fisher)


def sizes(quick: bool) -> tuple[Split, Split]:
    """The data, and those to tune with, which share no image with them."""
    x, y, x_test, y_test = fashion()
    x, x_test = x.reshape(-1, 784), x_test.reshape(-1, 784)
    n, m = (500, 200) if quick else (IMAGES, 2000)
    other = slice(2 * IMAGES, 2 * IMAGES + n), slice(4 * IMAGES, 4 * IMAGES + m)
    tuning = Split(x[other[0]], y[other[0]], x[other[1]], y[other[1]])
    tests = len(x_test) if not quick else m
    return Split(x[:n], y[:n], x_test[:tests], y_test[:tests]), tuning


def experiment(quick: bool) -> Result:
    data, tuning = sizes(quick)
    seeds, tuned = range(1 if quick else 5), TUNING_SEEDS[: 1 if quick else 2]
    grids = {"EWC": EWC, "L2-SP": L2_SP}
    tried = {
        name: [
            float(np.mean([run(tuning, n, s, name == "EWC")[-1] for n in tuned]))
            for s in (grid[1:2] if quick else grid)
        ]
        for name, grid in grids.items()
    }
    best = {
        name: grids[name][1 if quick else int(np.argmax(scores))]
        for name, scores in tried.items()
    }
    print(tried, best, flush=True)
    found = {
        name: np.array([run(data, seed, s, name == "EWC") for seed in seeds])
        for name, s in {"EWC": best["EWC"], "L2-SP": best["L2-SP"], "none": 0.0}.items()
    }
    last = {name: each[:, -1].mean(axis=1) for name, each in found.items()}
    ewc = float(last["EWC"].mean())
    bars = [
        Bar("accuracy of EWC", ewc, ">=", last["none"].mean() + 0.15, "none + 0.15"),
        Bar("accuracy of EWC", ewc, ">=", last["L2-SP"].mean() + 0.04, "L2-SP + 0.04"),
    ]
    rows = [
        [name, f"{best.get(name, 0):g}", spread(last[name]), spread(each[:, -1, 0])]
        for name, each in found.items()
    ]
    settings = {
        "seeds": f"{list(seeds)}, which set the orders and the first weights",
        "net": "784-256-256-10, Adam, batches of 100, "
        f"{EPOCHS} epochs a task, {len(data.y):,} images, 500 for each Fisher",
        "tuned": "with two seeds, orders and images of their own; mean accuracies were "
        + "; ".join(
            f"{name} "
            + ", ".join(
                f"{v:.3f} at {s:g}" for s, v in zip(grids[name], t, strict=False)
            )
            for name, t in tried.items()
        ),
    }
    head = ("penalty", "strength", "mean of five tasks", "the first task")
    return Result(
        bars, head, rows, settings, {n: f.mean(axis=0) for n, f in found.items()}
    )


def draw(result: Result, figure: Any) -> None:
    """The forgetting curves: each task's accuracy after this and each later task."""
    axes = figure.subplots(1, 3, sharey=True)
    titles = {"none": "no penalty", "L2-SP": "L2-SP", "EWC": "EWC"}
    after = np.arange(1, TASKS + 1)
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        curves = np.array(result.curves[name])
        for task in range(TASKS):
            axis.plot(
                after[task:],
                curves[task:, task],
                "o-",
                color=COLOURS[task],
                label=f"task {task + 1}",
            )
        mean = curves[-1].mean()
        axis.axhline(mean, color="0.6", linewidth=1, linestyle="--", zorder=0)
        axis.set_title(f"{title}: {mean:.3f} at the end")
        axis.set_xlabel("tasks learned")
        axis.set_xticks(after)
    axes[0].set_ylabel("accuracy on the test images")
    axes[0].legend(frameon=False, loc="lower left", fontsize=9)


if __name__ == "__main__":
    main("five_tasks", experiment, draw)
