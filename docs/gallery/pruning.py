"""Single zeros at equal accuracy: a count of nonzeros against pruning by magnitude.

Need: a net of which 90, 95 or 98 % of the weights are zero. Data: Fashion-MNIST,
LeNet-300-100. Ours: `Proximal` with `L0`, whose strength follows a wanted density, then
`HoldZeros` for tuning. Rivals: pruning by magnitude at once (Han et al. 2015) and along
the same curve of densities (Zhu and Gupta 2017), tuned alike, from the same dense nets.
Bar: half a point more than each rival, of the mean accuracy on the test images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from data import fashion
from frame import COLOURS, Bar, Result, main, spread

import keras_penalties as kp

IMAGES, SEEDS, ZEROS = 50_000, (0, 1, 2), (90, 95, 98)
BATCH, EPOCHS, EVERY = 200, 10, 10
PRUNING_RATE, TUNING_RATE = 2e-3, 1e-3

Weights = list[np.ndarray]
Found = dict[tuple[str, int], list[list[float]]]


class Task(NamedTuple):
    """The images to train on, and the seed of the net and of the order."""

    x: np.ndarray
    y: np.ndarray
    seed: int


class Steps(keras.callbacks.Callback):
    """Calls a function with the model and the share of the steps, each tenth step."""

    def __init__(self, act: Callable[[keras.Model, float], None], task: Task) -> None:
        super().__init__()
        self.act, self.steps, self.done = act, EPOCHS * len(task.x) // BATCH, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        if self.done % EVERY == 0:
            self.act(self.model, self.done / self.steps)


def trained(
    task: Task, weights: Weights, optimizer: Any, epochs: int, *acts: Steps
) -> Weights:
    """The weights of a LeNet-300-100 after a plain fit, from others or from new."""
    keras.utils.set_random_seed(task.seed)
    dense = [keras.layers.Dense(n, "relu") for n in (300, 100)]
    net = keras.Sequential([keras.Input((784,)), *dense, keras.layers.Dense(10)])
    net.set_weights(weights or net.get_weights())
    net.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(task.x, task.y, BATCH, epochs, verbose=0, callbacks=list(acts))
    return list(net.get_weights())


def density(weights: Weights) -> float:
    """The share of nonzeros of all kernels."""
    return float(np.mean(np.concatenate([k.ravel() for k in weights[::2]]) != 0))


def wanted(done: float, goal: float) -> float:
    """The curve of Zhu and Gupta: fast at first, then slowly to the goal."""
    return float(goal + (1.0 - goal) * (1.0 - min(done, 1.0)) ** 3)


def cut(weights: Weights, goal: float) -> Weights:
    """The smallest entries of all kernels set to zero."""
    sizes = np.concatenate([np.abs(k).ravel() for k in weights[::2]])
    least = np.quantile(sizes, 1.0 - goal)
    return [w * (np.abs(w) > least) if w.ndim == 2 else w for w in weights]


def held(task: Task, weights: Weights, epochs: int = EPOCHS) -> Weights:
    """Tuned: every zero stays zero."""
    steps = epochs * len(task.x) // BATCH
    rate = keras.optimizers.schedules.CosineDecay(TUNING_RATE, steps)
    tuning = kp.optimizers.HoldZeros(keras.optimizers.Adam(rate))
    return trained(task, weights, tuning, epochs)


def gradually(task: Task, dense: Weights, goal: float) -> Weights:
    """Pruned by magnitude each ten steps; what was pruned stays zero."""

    def act(net: keras.Model, done: float) -> None:
        net.set_weights(cut(net.get_weights(), wanted(done, goal)))

    adam = kp.optimizers.HoldZeros(keras.optimizers.Adam(PRUNING_RATE))
    return held(task, trained(task, dense, adam, EPOCHS, Steps(act, task)))


def ours(task: Task, dense: Weights, goal: float) -> Weights:
    """`L0`, whose strength rises while there are more nonzeros than wanted."""
    strength = 1e-9

    def act(net: keras.Model, done: float) -> None:
        nonlocal strength
        excess = density(net.get_weights()) / wanted(done / 0.9, goal)
        strength *= float(np.exp(np.clip(1.2 * np.log(excess), -0.5, 0.7)))
        for term in kp.terms(net):
            kp.set_strength(net, term.name, strength)

    adam = keras.optimizers.Adam(PRUNING_RATE)
    proximal = kp.optimizers.Proximal(adam, {"kernel": kp.penalties.L0(strength)})
    pruned = trained(task, dense, proximal, EPOCHS, Steps(act, task))
    return held(task, cut(pruned, goal) if density(pruned) > goal else pruned)


METHODS = {
    "`Proximal` with `L0`": ours,
    "magnitude, gradually": gradually,
    "magnitude, at once": lambda *task: held(task[0], cut(*task[1:]), 2 * EPOCHS),
}


def accuracy(weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """In percent."""
    for kernel, bias in zip(weights[:4:2], weights[1:4:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0.0)
    return 100.0 * float(np.mean((x @ weights[4] + weights[5]).argmax(axis=1) == y))


def experiment(quick: bool) -> Result:
    images, seeds, zeros = (2_000, [0], [98]) if quick else (IMAGES, SEEDS, ZEROS)
    x, y, *test = fashion()
    order = np.random.default_rng(123).permutation(60_000)
    x, y, test[0] = x.reshape(-1, 784)[order], y[order], test[0].reshape(-1, 784)
    found: Found = {}
    for seed in seeds:
        task = Task(x[:images], y[:images], seed)
        dense = trained(task, [], keras.optimizers.Adam(1e-3), EPOCHS)
        runs = {("no zeros", 0): held(task, dense, 2 * EPOCHS)}
        for share in zeros:
            for name, method in METHODS.items():
                runs[name, share] = method(task, dense, 1.0 - share / 100)
        for key, w in runs.items():
            right = [accuracy(w, x[-10_000:], y[-10_000:]), accuracy(w, *test)]
            found.setdefault(key, []).append([*right, 100.0 * (1.0 - density(w))])
    return Result(
        *table(found),
        settings={
            "data": f"{images:,} images to train on, 10,000 of the 60,000 to validate, "
            "10,000 to test",
            "seeds": f"{list(seeds)}, of the net and of the order of the images",
            "all": f"batches of {BATCH}; {EPOCHS} epochs dense by Adam(0.001), from "
            f"which each method starts; {EPOCHS} epochs of pruning by "
            f"Adam({PRUNING_RATE}); {EPOCHS} of tuning by Adam with "
            f"CosineDecay({TUNING_RATE}), and {2 * EPOCHS} for at once and no zeros",
            "choice": "the rates on validation images, for ours and gradual alike",
        },
        curves={f"{n}|{z}": [run[1] for run in each] for (n, z), each in found.items()},
    )


def table(found: Found) -> tuple[list[Bar], tuple[str, ...], list[list[str]]]:
    """The bars, and the head and the rows of the table."""
    test = {key: float(np.mean(runs, axis=0)[1]) for key, runs in found.items()}
    first, *rivals = METHODS
    bars = [
        Bar(
            f"accuracy at {share} % zeros, in %",
            test[first, share],
            ">=",
            test[rival, share] + 0.5,
            f"{rival}, and half a point",
        )
        for share in sorted({share for _, share in found if share})
        for rival in rivals
    ]
    rows = []
    for (name, _), runs in sorted(found.items(), key=lambda item: item[0][1]):
        valid, tested, zeros = zip(*runs, strict=True)
        rows.append([name, f"{min(zeros):.2f}", spread(valid, 2), spread(tested, 2)])
    return bars, ("method", "zeros %, the least", "validation %", "test %"), rows


def draw(result: Result, figure: Any) -> None:
    """The accuracies over the zeros, each seed a point."""
    axis, dense = figure.subplots(), np.mean(result.curves["no zeros|0"])
    axis.axhline(dense, color="0.55", linestyle=":", label="no zeros")
    curves = [(*key.split("|"), each) for key, each in result.curves.items()]
    places = sorted({share for _, share, _ in curves} - {"0"})
    for name, colour in zip(METHODS, (COLOURS[1], COLOURS[0], COLOURS[4]), strict=True):
        runs = [each for own, _, each in curves if own == name]
        axis.plot(places, np.mean(runs, 1), c=colour, lw=2, label=name.replace("`", ""))
        axis.plot(places, runs, "o", c=colour, ms=5, alpha=0.6)
    axis.set(xlabel="zeros, in %", ylabel="accuracy on test images, in %")
    axis.legend(frameon=False, loc="lower left")


if __name__ == "__main__":
    main("pruning", experiment, draw)
