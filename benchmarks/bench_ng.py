"""Ng's sparse autoencoder on digits and on photographs, against L-BFGS.

    python benchmarks/bench_ng.py [--docs] [--quick]

`digits` trains on scikit-learn's digits with β = 3 beside a mean, which is β = 3m
beside a sum over m samples. `patches` trains 25 units on 8 × 8 patches of photographs,
prepared as in Ng's notes, and compares the objective with that of scipy's L-BFGS from
the same start. A function that needs only NumPy gives both. `filters` counts the
oriented edges among the filters and in control groups; edges.py says what an edge is.
With --docs the tables and the picture go into docs/sparse_autoencoder.md. --quick takes
few steps.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass

import keras
import numpy as np
from edges import LEAST_COHERENCE, LEAST_SHARE, PLACES, SIDE, edges
from pages import DOCS, table, write

import keras_penalties as kp
from keras_penalties.demo import STEPS, FullBatches

STEPS_OF_ADAM, RATE_OF_ADAM = 3000, 0.03
DECAY, SPARSITY = 1e-4, 3.0  # Ng's λ and β
HIDDEN, PATCHES = 25, 10_000
IMAGES = ("astronaut", "camera", "chelsea", "coffee", "rocket")  # of scikit-image


@dataclass(frozen=True)
class Bar:
    """A figure, and what it is to reach."""

    name: str
    figure: float
    bar: float
    at_most: bool

    def row(self) -> list[str]:
        met = self.figure <= self.bar if self.at_most else self.figure >= self.bar
        sign = "≤" if self.at_most else "≥"
        verdict = "met" if met else "**not met**"
        return [self.name, f"{self.figure:.5g}", f"{sign} {self.bar:g}", verdict]


HEAD = "figure | found | bar | "


def trained(model, x, steps):
    """By plain `fit` with full batches and Adam, whose rate falls to 0."""
    rate = keras.optimizers.schedules.CosineDecay(RATE_OF_ADAM, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "half_sum_squared_error",
        steps_per_execution=1 if keras.backend.backend() == "torch" else STEPS,
    )
    model.fit(FullBatches(x, STEPS), epochs=steps // STEPS, verbose=0)
    return model


# Digits: is each unit's mean activation ρ, and how good is the reconstruction?


def digits_rows(steps):
    from sklearn.datasets import load_digits

    x = (load_digits().data / 16.0).astype("float32")
    keras.utils.set_random_seed(0)
    model = kp.models.SparseAutoencoder(weight_decay=DECAY, sparsity=SPARSITY)
    trained(model, x, steps)
    mean = keras.ops.convert_to_numpy(model.encode(x)).astype("float64").mean(axis=0)
    left = np.square(x - model.predict(x, verbose=0)).sum()
    explained = 1.0 - left / np.square(x - x.mean(axis=0)).sum()
    away = abs(mean - model.rate)
    yield Bar("distance of the mean activation from ρ", away.mean(), 0.002, True).row()
    yield Bar("the same, of the worst unit", away.max(), 0.002, True).row()
    yield Bar("explained variance", float(explained), 0.95, False).row()


# Photographs: the objective beside L-BFGS', and the filters.


def patches():
    """Patches of grey photographs without their means, cut at 3σ, within [0.1, 0.9]."""
    from skimage import color, data
    from sklearn.datasets import load_sample_images

    images = [getattr(data, name)() for name in IMAGES] + load_sample_images().images
    grey = [color.rgb2gray(i) if i.ndim == 3 else i / 255.0 for i in images]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(PATCHES):
        image = grey[rng.integers(len(grey))]
        top, left = (rng.integers(n - SIDE + 1) for n in image.shape)
        found.append(image[top : top + SIDE, left : left + SIDE].ravel())
    x = np.array(found)
    x -= x.mean(axis=1, keepdims=True)
    cut = 3.0 * x.std()
    return ((np.clip(x, -cut, cut) / cut + 1.0) * 0.4 + 0.1).astype("float32")


def objective(weights, x, hidden, rate):
    """Ng's J and its gradient, by the formulas of his notes."""
    rows, width = x.shape
    size = width * hidden
    first, second, b1, b2 = np.split(weights, [size, 2 * size, 2 * size + hidden])
    first, second = first.reshape(width, hidden), second.reshape(hidden, width)
    code = 1.0 / (1.0 + np.exp(-(x @ first + b1)))
    output = 1.0 / (1.0 + np.exp(-(code @ second + b2)))
    mean, error = code.mean(axis=0), output - x
    kl = rate * np.log(rate / mean) + (1 - rate) * np.log((1 - rate) / (1 - mean))
    value = 0.5 * np.sum(error**2) / rows + SPARSITY * kl.sum()
    value += 0.5 * DECAY * (np.sum(first**2) + np.sum(second**2))
    by_output = error * output * (1.0 - output) / rows
    by_mean = SPARSITY * ((1.0 - rate) / (1.0 - mean) - rate / mean) / rows
    by_code = (by_output @ second.T + by_mean) * code * (1.0 - code)
    slopes = (
        x.T @ by_code + DECAY * first,
        code.T @ by_output + DECAY * second,
        by_code.sum(axis=0),
        by_output.sum(axis=0),
    )
    return value, np.concatenate([s.ravel() for s in slopes])


def weights_of(model):
    """Both kernels and both biases, one after the other."""
    one, two = model.encoder.layer, model.decoder.layer
    found = (one.kernel, two.kernel, one.bias, two.bias)
    arrays = [keras.ops.convert_to_numpy(w).astype("float64") for w in found]
    return np.concatenate([a.ravel() for a in arrays])


def untrained():
    """The model for patches, ρ = 0.01 as in Ng's exercise."""
    keras.utils.set_random_seed(0)
    model = kp.models.SparseAutoencoder(HIDDEN, DECAY, SPARSITY, rate=0.01)
    model.build((None, SIDE**2))
    return model


@functools.cache
def on_patches(steps):
    """The patches, the weights that L-BFGS finds, and those that `fit` finds."""
    from scipy.optimize import minimize

    x, model = patches(), untrained()
    best = minimize(
        objective,
        weights_of(model),
        (x.astype("float64"), HIDDEN, model.rate),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps, "maxfun": 2 * steps, "maxcor": 20},
    )
    return x, best.x, weights_of(trained(model, x, steps))


def patches_rows(steps):
    x, theirs, ours = on_patches(steps)
    x, rate = x.astype("float64"), untrained().rate
    start = objective(weights_of(untrained()), x, HIDDEN, rate)[0]
    least, reached = (objective(w, x, HIDDEN, rate)[0] for w in (theirs, ours))
    yield ["J at the start", f"{start:.5f}", "", ""]
    yield ["J by L-BFGS", f"{least:.5f}", "", ""]
    yield ["J by `fit`", f"{reached:.5f}", "", ""]
    yield Bar("J by `fit` / J by L-BFGS", reached / least, 1.04, True).row()
    count = int(edges(filters_of(ours)).sum())
    yield Bar(f"filters that are edges, of {HIDDEN}", count, 22, False).row()


def filters_of(weights):
    """What each hidden unit looks for, (units, 64)."""
    return weights[: HIDDEN * SIDE**2].reshape(SIDE**2, HIDDEN).T


def controls(x):
    """Filters that are no edges, or only some of them are."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, SIDE, SIDE))
    smooth = gaussian_filter(noise, (0, 1, 1))
    axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2]
    square = PLACES[:, None] ** 2 + PLACES**2
    blobs = [np.exp(-0.5 * square / s**2).ravel() for s in (0.7, 1, 1.5, 2, 3)]
    return {
        "the start of the training": filters_of(weights_of(untrained())),
        "noise": noise.reshape(1000, -1),
        "noise, blurred by one pixel": smooth.reshape(1000, -1),
        f"the first {HIDDEN} principal components": axes[:HIDDEN],
        "round blobs of five sizes": np.array(blobs),
    }


def filters_rows(steps):
    x, theirs, ours = on_patches(steps)
    groups = {
        "the filters by `fit`": filters_of(ours),
        "the filters by L-BFGS": filters_of(theirs),
        **controls(x),
    }
    for name, filters in groups.items():
        count = int(edges(filters).sum())
        share = f"{100 * count / len(filters):.1f} %"
        yield [name, f"{count} of {len(filters):,}", share]


def draw(filters, path):
    """Each filter, and a frame around those that are edges."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(5, 5, figsize=(5, 5), layout="constrained")
    for axis, w, edge in zip(axes.flat, filters, edges(filters), strict=True):
        top = abs(w).max()
        axis.imshow(w.reshape(SIDE, SIDE), cmap="gray", vmin=-top, vmax=top)
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set(color="tab:green" if edge else "tab:red", linewidth=2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


TABLES = {
    "digits": (HEAD, digits_rows),
    "patches": (HEAD, patches_rows),
    "filters": (
        f"share ≥ {LEAST_SHARE} and coherence ≥ {LEAST_COHERENCE} | edges | ",
        filters_rows,
    ),
}


def main(arguments):
    """Print the tables, and write them into the docs if asked to."""
    steps = 2 * STEPS if "--quick" in arguments else STEPS_OF_ADAM
    for name, (head, rows) in TABLES.items():
        text = table(head, rows(steps))
        print(f"{name}, {keras.backend.backend()}\n\n{text}\n", flush=True)
        if "--docs" in arguments:
            write("sparse_autoencoder.md", f"bench_ng {name}", text)
    if "--docs" in arguments:
        draw(filters_of(on_patches(steps)[2]), DOCS / "images" / "ng_filters.png")


if __name__ == "__main__":
    main(sys.argv[1:])
