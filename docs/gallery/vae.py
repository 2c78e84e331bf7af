"""A variational autoencoder (VAE) whose code does not collapse.

Need: a code that the decoder uses. Early in training the KL divergence pulls all units
of the code to the prior, and units that are lost stay lost. Data: 10,000 images of
Fashion-MNIST, and 2,000 others to judge with. Ours: the KL divergence is an `AddLoss`,
its strength a number, a `LinearRamp` (Sønderby et al. 2016), a `Cyclical` (Fu et al.
2019) or a `Target` that holds a rate (Alemi et al. 2018).
Rival: the constant. Bars: ramp and cycles keep at least as many active units (Burda et
al. 2016: the variance of a unit's mean over the images is above 0.01) and at least the
held-out bound of the constant, as the papers report; the target's rate is within 1 %.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from data import fashion
from frame import COLOURS, Bar, Result, main, spread
from keras import layers, ops

import keras_penalties as kp

CODE, BATCH, IMAGES, RATE = 32, 100, 10_000, 20.0


@kp.register(package="gallery")
def gaussian_kl(mean: Any, log_variance: Any) -> Any:
    """KL(N(mean, variance) ‖ N(0, 1)) of each sample: its rate, in nats."""
    each = ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance
    return 0.5 * ops.sum(each, axis=-1)


@kp.register(package="gallery")
def bits(y_true: Any, y_pred: Any) -> Any:
    """The cross-entropy of all pixels of an image, of logits."""
    each = ops.relu(y_pred) - y_pred * y_true + ops.softplus(-ops.abs(y_pred))
    return ops.sum(each, axis=-1)


class Sample(layers.Layer):
    """mean + deviation · noise."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.random = keras.random.SeedGenerator()

    def call(self, mean: Any, log_variance: Any) -> Any:
        noise = keras.random.normal(ops.shape(mean), seed=self.random)
        return mean + ops.exp(0.5 * log_variance) * noise


def ours(strength: Any) -> tuple[keras.Model, keras.Model, keras.Model]:
    """A VAE that is compiled, its encoder and its decoder."""
    image, code = keras.Input((784,)), keras.Input((CODE,))
    hidden = image
    for width in (256, 256):
        hidden = layers.Dense(width, "relu")(hidden)
    mean, log_variance = layers.Dense(CODE)(hidden), layers.Dense(CODE)(hidden)
    encoder = keras.Model(image, [mean, log_variance])
    decoder = keras.Sequential(
        [code, *(layers.Dense(n, "relu") for n in (256, 256)), layers.Dense(784)]
    )
    kl = kp.layers.AddLoss(gaussian_kl, strength=strength, name="kl")
    z = Sample()(kl(mean, log_variance=log_variance), log_variance)
    vae = keras.Model(image, decoder(z))
    vae.compile(keras.optimizers.Adam(1e-3), loss=bits)
    return vae, encoder, decoder


def schedules(steps: int) -> dict[str, Any]:
    """The strengths, for a training of so many steps."""
    held = kp.Target(RATE, kind="==", initial=1.0, rate=0.02, relative=True)
    return {
        "constant": 1.0,
        "ramp": kp.strengths.LinearRamp(0.0, 1.0, steps // 2),
        "cycles": kp.strengths.Cyclical(0.0, 1.0, steps // 4 + 1),
        "target": held,
    }


def numpy(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))


def coded(encoder: keras.Model, x: np.ndarray) -> tuple[float, int, Any]:
    """The rate, the active units, and the code."""
    code = encoder(x)
    active = numpy(code[0]).var(axis=0) > 0.01
    return float(numpy(gaussian_kl(*code)).mean()), int(active.sum()), code


def bound(encoder: keras.Model, decoder: keras.Model, x: np.ndarray) -> float:
    """The evidence lower bound in nats, with strength 1, over ten drawn codes."""
    rate, _, (mean, log_variance) = coded(encoder, x)
    sample = Sample()
    distortions = [
        numpy(bits(x, decoder(sample(mean, log_variance)))).mean() for _ in range(10)
    ]
    return -rate - float(np.mean(distortions))


def trained(
    name: str, x: np.ndarray, x_test: np.ndarray, seed: int, epochs: int
) -> dict[str, Any]:
    keras.utils.set_random_seed(seed)
    strength = schedules(epochs * len(x) // BATCH)[name]
    vae, encoder, decoder = ours(strength)
    curve = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: curve.append(coded(encoder, x_test)[:2])
    )
    fit = vae.fit(x, x, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[watch])
    logs = fit.history
    found = {
        "rate": logs["kl"][-1] / logs.get("kl_strength", [1.0])[-1],
        "rate at the end": coded(encoder, x)[0],
        "bound": bound(encoder, decoder, x_test),
        "active": curve[-1][1],
        "held-out rate": curve[-1][0],
        "curve": curve,
    }
    noise = np.random.default_rng(0).normal(size=(6, CODE)).astype("float32")
    images = 1.0 / (1.0 + np.exp(-numpy(decoder(noise))))
    found["samples"] = np.round(255 * images).astype(int)
    print(name, seed, found["active"], f"{found['rate']:.2f} {found['bound']:.2f}")
    return found


def experiment(quick: bool) -> Result:
    data = fashion()
    n, m, epochs, seeds = (
        (500, 200, 2, range(1)) if quick else (IMAGES, 2000, 20, range(3))
    )
    x, x_test = data.x[:n].reshape(n, 784), data.x_test[:m].reshape(m, 784)
    names = list(schedules(100))
    found = {s: [trained(s, x, x_test, seed, epochs) for seed in seeds] for s in names}

    def mean(name: str, what: str) -> float:
        return float(np.mean([run[what] for run in found[name]]))

    bars = [
        Bar(f"{what}, {s}", mean(s, key), ">=", mean("constant", key), "constant")
        for what, key in (("active units", "active"), ("held-out bound", "bound"))
        for s in ("ramp", "cycles")
    ]
    off = max(abs(run["rate"] / RATE - 1.0) for run in found["target"])
    bars.append(Bar(f"rate off its target {RATE:g}, most", off, "<=", 0.01, "1 %"))
    keys = ("rate", "rate at the end", "held-out rate")
    rows = [
        [
            s,
            *(
                spread([run[k] for run in found[s]], 2)
                for k in ("active", "bound", *keys)
            ),
        ]
        for s in names
    ]
    settings = {
        "seeds": list(seeds),
        "net": f"784-256-256-{CODE}-256-256-784, Adam(0.001), batches of {BATCH}, "
        f"{epochs} epochs, {n:,} images and {m:,} held out",
        "rate": "mean over the steps of the last epoch",
        "strengths": "1; 0 to 1 over the first half; four cycles of 0 to 1 with the "
        f"ramp in the first half of each; a target of {RATE:g} nats",
    }
    head = ("KL strength", f"active of {CODE}", "held-out bound", *keys)
    curves = {
        s: {"curve": runs[0]["curve"], "samples": runs[0]["samples"]}
        for s, runs in found.items()
    }
    return Result(bars, head, rows, settings, curves)


def draw(result: Result, figure: Any) -> None:
    """The rate and the active units over the epochs, and images from the prior."""
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
    axes = left.subplots(1, 2)
    grids = right.subplots(len(result.curves), 6)
    lines = zip(result.curves.items(), COLOURS[:2] + COLOURS[3:5], grids, strict=True)
    for (name, found), colour, row in lines:
        curve = np.array(found["curve"])
        epochs = np.arange(1, len(curve) + 1)
        for i, axis in enumerate(axes):
            axis.plot(epochs, curve[:, i], color=colour, linewidth=2, label=name)
        for cell, image in zip(row, found["samples"], strict=True):
            cell.imshow(np.reshape(image, (28, 28)), cmap="gray_r")
            cell.set_axis_off()
        row[0].set_title(name, fontsize=10, loc="left", color=colour)
    for axis, title in zip(axes, ("rate (KL), nats", "active units"), strict=True):
        axis.set_title(f"{title}, held out", fontsize=11)
        axis.set_xlabel("epoch")
    axes[0].axhline(RATE, color="black", linewidth=1, linestyle=":")
    axes[1].legend(frameon=False)
    right.suptitle("drawn from the prior", fontsize=11)


if __name__ == "__main__":
    main("vae", experiment, draw)
