"""Two losses in two units: uncertainty finds their weights.

Need: one net with two outputs whose errors have different units, no weights to tune.
Data: the authors' toy, 100 samples of two lines, with noise of deviation 10 and 1.
Ours: `AddLoss` with `Learned("auto")` (Kendall, Gal, Cipolla, CVPR 2018). Rivals: the
authors' own layer, from yaringal/multi-task-learning-example, and `Learned()` from 1.
Bar: after the authors' 2,000 epochs each σ is within 3 % of its output's residual, the
root mean square over the 100 samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from frame import COLOURS, Bar, Result, main, spread
from keras import layers, ops

import keras_penalties as kp

NOISE = {"y1": 10.0, "y2": 1.0}
Nets = tuple[keras.Model, keras.Model, Callable[[], list[float]]]
"""The net, the net with its losses, and how to read the two σ."""


def ours(initial: Any = "auto") -> Nets:
    """Each loss with a strength that is learned: σ² = 1 / (2·strength)."""
    net = two_lines()
    truths = {name: keras.Input((1,)) for name in NOISE}
    outputs = [
        kp.layers.AddLoss(
            "mean_squared_error", kp.strengths.Learned(initial), name=f"{name}_loss"
        )(y_pred, y_true=truths[name])
        for name, y_pred in net.output.items()
    ]
    training = keras.Model([net.input, *truths.values()], outputs)
    return (
        net,
        training,
        lambda: [
            float(2 * (term.strength or 0.0)) ** -0.5 for term in kp.terms(training)
        ],
    )


def two_lines() -> keras.Model:
    x = keras.Input((1,))
    hidden = layers.Dense(1024, "relu")(x)
    return keras.Model(x, {name: layers.Dense(1)(hidden) for name in NOISE})


class AuthorsLayer(layers.Layer):
    """The layer of the authors' notebook, in Keras 3."""

    def build(self, input_shape: Any) -> None:
        self.log_vars = [
            self.add_weight(shape=(1,), initializer="zeros") for _ in NOISE
        ]

    def call(self, inputs: Any) -> Any:
        loss = 0.0
        for y_true, y_pred, log_var in zip(
            inputs[:2], inputs[2:], self.log_vars, strict=True
        ):
            precision = ops.exp(-log_var[0])
            loss += ops.sum(precision * (y_true - y_pred) ** 2 + log_var[0], -1)
        self.add_loss(ops.mean(loss))
        return ops.concatenate(inputs, -1)


def authors() -> Nets:
    net, layer = two_lines(), AuthorsLayer()
    truths = [keras.Input((1,)) for _ in NOISE]
    training = keras.Model([net.input, *truths], layer([*truths, *net.output.values()]))
    return (
        net,
        training,
        lambda: [
            float(ops.convert_to_numpy(ops.exp(v[0]))) ** 0.5 for v in layer.log_vars
        ],
    )


METHODS: dict[str, Callable[[], Nets]] = {
    '`Learned("auto")`': ours,
    "the authors' layer": authors,
    "`Learned()`, from 1": lambda: ours(1.0),
}


def toy(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `gen_data` of the notebook has it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 1))
    y1 = 2.0 * x + 8.0 + NOISE["y1"] * rng.normal(size=(100, 1))
    y2 = 3.0 * x + 3.0 + NOISE["y2"] * rng.normal(size=(100, 1))
    return x, y1, y2


def trained(method: Callable[[], Nets], seed: int, epochs: int) -> np.ndarray:
    """(times, 2, σ and residual), every 20 epochs."""
    keras.utils.set_random_seed(seed)
    net, training, sigmas = method()
    training.compile("adam")
    x, *y = data = toy(seed)
    found = []

    def keep(epoch: int, logs: Any) -> None:
        if (epoch + 1) % 20 == 0:
            predicted = net(x).values()
            errors = [
                t - ops.convert_to_numpy(p) for t, p in zip(y, predicted, strict=True)
            ]
            rms = [float(np.sqrt(np.mean(e**2))) for e in errors]
            found.append(list(zip(sigmas(), rms, strict=True)))

    watch = keras.callbacks.LambdaCallback(on_epoch_end=keep)
    training.fit(list(data), epochs=epochs, batch_size=20, verbose=0, callbacks=[watch])
    return np.array(found)


def experiment(quick: bool) -> Result:
    epochs, seeds = (100, range(1)) if quick else (2000, range(3))
    found = {
        name: np.array([trained(method, seed, epochs) for seed in seeds])
        for name, method in METHODS.items()
    }
    off = {
        name: np.abs(runs[:, -1, :, 0] / runs[:, -1, :, 1] - 1.0)
        for name, runs in found.items()
    }
    best = '`Learned("auto")`'
    rival = off["the authors' layer"]
    bars = [
        Bar(
            f"σ of {noise:g} off its residual, most",
            off[best][:, i].max(),
            "<=",
            bar,
            of,
        )
        for i, noise in enumerate(NOISE.values())
        for bar, of in ((0.03, "3 %"), (rival[:, i].max(), "the authors' layer"))
    ]
    rows = []
    for name, runs in found.items():
        cells = [spread(runs[:, -1, i, j], 2) for i in (0, 1) for j in (0, 1)]
        rows.append(
            [name, *cells, *(f"{100 * off[name][:, i].max():.2f} %" for i in (0, 1))]
        )
    settings = {
        "seeds": f"{list(seeds)}, which set the data and the first weights",
        "net and training": "as the authors': 1-1024-2, Adam, batches of 20, "
        f"{epochs} epochs",
    }
    head = (
        "weights by",
        "σ1",
        "residual 1",
        "σ2",
        "residual 2",
        "σ1 off, most",
        "σ2 off, most",
    )
    return Result(bars, head, rows, settings, {n: r[0] for n, r in found.items()})


def draw(result: Result, figure: Any) -> None:
    """σ over the epochs, beside the residual that it should be."""
    axes = figure.subplots(1, 2)
    lines = dict(zip(METHODS, (COLOURS[0], COLOURS[4], COLOURS[3]), strict=True))
    for i, (axis, noise) in enumerate(zip(axes, NOISE.values(), strict=True)):
        for name, colour in lines.items():
            run = np.array(result.curves[name])[:, i]
            epochs = 20 * np.arange(1, len(run) + 1)
            axis.plot(epochs, run[:, 1], color="0.75", linewidth=3, zorder=0)
            label = name.replace("`", "")
            axis.plot(epochs, run[:, 0], color=colour, linewidth=2, label=label)
        axis.plot([], [], color="0.75", linewidth=3, label="residual (rms)")
        axis.axhline(noise, color="black", linewidth=1, linestyle=":")
        axis.set_title(f"noise of deviation {noise:g}")
        axis.set_xlabel("epoch")
    axes[0].set_ylabel("σ")
    axes[0].legend(frameon=False)


if __name__ == "__main__":
    main("two_units", experiment, draw)
