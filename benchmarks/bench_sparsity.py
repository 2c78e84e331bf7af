"""Zeros by Proximal against plain L1, Ftrl and magnitude pruning, on digits.

    python benchmarks/bench_sparsity.py [--docs] [exact] [accuracy]

`exact` minimises a convex objective, softmax regression + L1, whose minimum
scikit-learn finds. `accuracy` trains a perceptron 64-300-100-10 over a range of
strengths. For each method it reports the run with most zeros that loses at most one
point on a validation split, with its accuracy on the test split. With --docs the
tables go into docs/smaller_models.md.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import keras
import numpy as np
from compact_models import accuracy, adam, compiled, digits
from keras import layers, ops
from pages import table, write

import keras_penalties as kp

STRENGTH, STEPS = 0.005, 3000
EPOCHS, SEEDS, MAY_LOSE = 40, (0, 1), 0.01
CUT = 1e-3  # below this an entry counts as zero, for methods without exact zeros
GRID = (2e-4, 4e-4, 6e-4, 1e-3)


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def kernels(model):
    return [w for w in model.trainable_weights if w.path.endswith("kernel")]


def sparsity(model):
    """The share of zeros in the kernels."""
    found = [numpy(w) for w in kernels(model)]
    return sum((w == 0).sum() for w in found) / sum(w.size for w in found)


# Softmax regression: how near does each method come to the minimum?


def objective(kernel, bias, x, y):
    scores = x @ kernel + bias
    top = scores.max(axis=1)
    spread = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    return np.mean(spread - scores[range(len(y)), y]) + STRENGTH * abs(kernel).sum()


def minimum(x, y):
    """Kernel and bias of scikit-learn's answer."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on how L1 is asked for
        model = LogisticRegression(
            penalty="l1",
            solver="saga",
            C=1.0 / (STRENGTH * len(x)),
            tol=1e-7,
            max_iter=5000,
        ).fit(x, y)
    return model.coef_.T, model.intercept_


def softmax(optimizer, x, y, regularizer=None):
    """The kernel and the bias after the given number of full batches."""
    dense = layers.Dense(10, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((64,)), dense])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    many = 1 if keras.backend.backend() == "torch" else 30
    model.compile(optimizer, loss, steps_per_execution=many)
    batches = np.tile(x, (30, 1)), np.tile(y, 30)
    epochs = STEPS // 30
    model.fit(*batches, batch_size=len(x), epochs=epochs, shuffle=False, verbose=0)
    return numpy(dense.kernel), numpy(dense.bias)


def exact_rows():
    """Each method with full batches, equal steps, and a learning rate that falls to 0.

    Ftrl, whose rate goes down by itself, has a constant one. Its strength is counted
    once and not at each step, so the best of several is taken.
    """
    (images, y), _ = digits()
    x = images.reshape(len(images), -1)
    best = minimum(x.astype("float64"), y)
    least, zeros = objective(*best, x, y), best[0] == 0
    rate = keras.optimizers.schedules.CosineDecay
    sgd = keras.optimizers.SGD(rate(0.3, STEPS), momentum=0.9)
    adams = [keras.optimizers.Adam(rate(0.05, STEPS)) for _ in range(2)]
    l1 = {"kernel": kp.penalties.L1(STRENGTH)}
    ftrls = [
        keras.optimizers.Ftrl(0.5, l1_regularization_strength=s)
        for s in (0.1, 0.3, 1.0, 3.0, 10.0)
    ]
    found = {
        "scikit-learn": best,
        "`Proximal(SGD)`": softmax(kp.optimizers.Proximal(sgd, l1), x, y),
        "`Proximal(Adam)`": softmax(kp.optimizers.Proximal(adams[0], l1), x, y),
        "L1 by gradient, Adam": softmax(
            adams[1], x, y, keras.regularizers.L1(STRENGTH)
        ),
        "Ftrl, the best of 5 strengths": min(
            (softmax(ftrl, x, y) for ftrl in ftrls), key=lambda w: objective(*w, x, y)
        ),
    }
    for name, (kernel, bias) in found.items():
        reached = objective(kernel, bias, x, y)
        yield [
            name,
            f"{reached:.6f}",
            f"{100 * (reached / least - 1):+.4f} %",
            f"{100 * (kernel == 0).mean():.1f} %",
            f"{((kernel == 0) != zeros).sum()} of {zeros.size}",
        ]


# The perceptron: zeros at the same accuracy.


def perceptron(optimizer, data, epochs=EPOCHS, regularizer=None):
    """64-300-100-10; the last kernel pays too."""
    stack = [
        layers.Dense(n, activation, kernel_regularizer=regularizer)
        for n, activation in ((300, "relu"), (100, "relu"), (10, None))
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), *stack])
    compiled(model, optimizer).fit(*data, batch_size=64, epochs=epochs, verbose=0)
    return model


def by_map(penalty):
    def train(strength, data):
        inner = adam(3e-3, EPOCHS, data)
        given = kp.get(penalty).with_strength(strength)
        return perceptron(kp.optimizers.Proximal(inner, {"kernel": given}), data)

    return train


def by_gradient(strength, data):
    """This method makes its zeros at the end."""
    regularizer = keras.regularizers.L1(strength)
    model = perceptron(adam(3e-3, EPOCHS, data), data, regularizer=regularizer)
    for w in kernels(model):
        w.assign(np.where(abs(numpy(w)) < CUT, 0.0, numpy(w)))
    return model


def by_ftrl(strength, data):
    # With a rate ten times smaller or three times larger it learns nothing.
    optimizer = keras.optimizers.Ftrl(0.3, l1_regularization_strength=strength)
    return perceptron(optimizer, data)


def by_magnitude(share, data):
    """The smallest entries become zero after 3/4 of the epochs; the rest is tuned."""
    first = 3 * EPOCHS // 4
    model = perceptron(adam(3e-3, first, data), data, first)
    sizes = np.concatenate([abs(numpy(w)).ravel() for w in kernels(model)])
    least = np.quantile(sizes, share)
    for w in kernels(model):
        mask = ops.convert_to_tensor(abs(numpy(w)) > least, w.dtype)
        w.assign(w * mask)
        w.constraint = lambda new, mask=mask: new * mask
    compiled(model, adam(1e-3, EPOCHS - first, data))
    model.fit(*data, batch_size=64, epochs=EPOCHS - first, verbose=0)
    return model


METHODS = {
    "`Proximal`, L1": (by_map("l1"), GRID),
    "`Proximal`, MCP": (by_map("mcp(width=0.5)"), GRID),
    f"L1 by gradient, then all below {CUT} cut": (by_gradient, GRID),
    "Ftrl": (by_ftrl, (1e-5, 1e-4, 1e-3, 3e-3)),
    "magnitude pruning, tuned": (by_magnitude, (0.7, 0.8, 0.85, 0.9)),
}


def accuracy_rows():
    """For each method the sparsest run with enough accuracy on the validation split."""
    (x, y), test = digits()
    data, validation = (x[:1000], y[:1000]), (x[1000:], y[1000:])

    def scores(train, knob):
        """Accuracy on validation and on test, and the share of zeros: seeds' means."""
        found = []
        for seed in SEEDS:
            keras.utils.set_random_seed(seed)
            model = train(knob, data)
            parts = [accuracy(model, part) for part in (validation, test)]
            found.append([*parts, sparsity(model)])
        return np.mean(found, axis=0)

    dense = scores(lambda _, data: perceptron(adam(3e-3, EPOCHS, data), data), None)
    yield ["no penalty", "", *(f"{100 * s:.1f} %" for s in dense)]
    for name, (train, knobs) in METHODS.items():
        runs = [(knob, scores(train, knob)) for knob in knobs]
        good = [run for run in runs if run[1][0] >= dense[0] - MAY_LOSE]
        knob, best = max(good or runs, key=lambda run: run[1][2 if good else 0])
        label = name if good else f"{name}: loses more than a point"
        yield [label, f"{knob:g}", *(f"{100 * s:.1f} %" for s in best)]


TABLES = {
    "exact": (
        "method | objective | above the minimum | zeros | zeros that differ",
        exact_rows,
    ),
    "accuracy": ("method | strength | validation | test | zeros", accuracy_rows),
}


def main(names):
    """Print the tables of these names, all if there are none."""
    for name in [n for n in names if n != "--docs"] or TABLES:
        head, rows = TABLES[name]
        text = table(head, rows())
        print(f"{name}, {keras.backend.backend()}\n\n{text}\n", flush=True)
        if "--docs" in names:
            write("smaller_models.md", f"bench_sparsity {name}", text)


if __name__ == "__main__":
    main(sys.argv[1:])
