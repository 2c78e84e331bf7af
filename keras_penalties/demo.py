"""The demo: train, show each term, save, reload in a new process, write a report."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_penalties.models.sparse_autoencoder import SparseAutoencoder
from keras_penalties.plots import plot_terms
from keras_penalties.terms import terms

STEPS = 50
"""Full-batch steps in one epoch of the demo."""


class FullBatches(keras.utils.PyDataset):
    """The whole data as one batch, `steps` times an epoch.

    `fit(x, x, epochs=1000)` of one step each would spend most of its time between
    epochs.
    """

    def __init__(self, x: np.ndarray, steps: int) -> None:
        super().__init__()
        self.x, self.steps = x, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x, self.x


def run(out: Path, epochs: int = 20) -> Path:
    """Train a sparse autoencoder on scikit-learn's digits and write the report.

    Args:
        out: The folder for the report, the pictures and the model. Created if needed.
        epochs: Epochs of 50 full-batch steps, 1 or more. Default 20, the tutorial's
            1,000 steps.

    Returns:
        The report's path, `out/report.html`.

    Raises:
        RuntimeError: if the model that a fresh process loads differs from this one.
    """
    from sklearn.datasets import load_digits

    out.mkdir(parents=True, exist_ok=True)
    x = (load_digits().data / 16.0).astype("float32")
    keras.utils.set_random_seed(0)
    model = SparseAutoencoder(weight_decay=1e-3)
    model.compile(
        keras.optimizers.Adam(0.01),
        loss="half_sum_squared_error",
        # The torch backend allows one step per execution only.
        steps_per_execution=1 if keras.backend.backend() == "torch" else STEPS,
    )
    history = model.fit(FullBatches(x, STEPS), epochs=epochs)
    print(terms(model))

    model.save(out / "model.keras")
    np.savez_compressed(out / "digits.npz", x=x)
    here = fingerprint(model, x)
    there = fingerprint_in_fresh_process(out)
    if here != there:
        raise RuntimeError(f"The reloaded model differs: {here} here, {there} there.")
    print(f"A fresh process reloads it: same predictions, loss and next step. {here}")

    # The check trained the model further: the pictures show the saved model.
    model = keras.saving.load_model(out / "model.keras")
    pictures = draw(model, history, x, out)
    report = out / "report.html"
    _write_beside(report, _page(model, history.history, here, pictures))
    print(f"Report: {report}")
    return report


def fingerprint(model: keras.Model, x: np.ndarray) -> dict[str, float]:
    """Numbers that must be equal after a reload, the next training step included."""
    prediction = model.predict(x, batch_size=len(x), verbose=0).astype("float64")
    steps = [model.train_on_batch(x, x, return_dict=True)["loss"] for _ in range(2)]
    # The first number is the loss of the saved model. The second is the mean of that
    # loss and the loss after one more step, as Keras reports running means.
    return {
        "predictions": float(prediction.sum()),
        "loss": float(steps[0]),
        "mean with the next step's": float(steps[1]),
    }


def fingerprint_in_fresh_process(folder: Path) -> dict[str, float]:
    """The fingerprint of the saved model, from a new Python process."""
    source = (
        "import json, sys, keras, numpy as np, keras_penalties\n"
        "from keras_penalties.demo import fingerprint\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras')\n"
        "x = np.load(sys.argv[1] + '/digits.npz')['x']\n"
        "print(json.dumps(fingerprint(model, x)))\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    finished = subprocess.run(
        [sys.executable, "-c", source, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"The fresh process failed: {finished.stderr[-2000:]}")
    result: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return result


def draw(model: Any, history: Any, x: np.ndarray, out: Path) -> dict[str, str]:
    """Write the pictures, and return a caption for each file name."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    code = keras.ops.convert_to_numpy(model.encode(x))
    rebuilt = model.predict(x, batch_size=len(x), verbose=0)
    kernel = keras.ops.convert_to_numpy(model.encoder.layer.kernel)
    shown = np.linspace(0, len(x) - 1, 12).astype(int)

    def save(name: str, figure: Any) -> None:
        figure.savefig(out / name, dpi=120)
        plt.close(figure)

    save("loss.png", plot_terms(history).figure)
    save("reconstructions.png", _tiles([x[shown], rebuilt[shown]], 12))
    strongest = np.argsort(-np.linalg.norm(kernel, axis=0))[:60]
    save("filters.png", _tiles([kernel[:, strongest].T], 15, "RdBu_r"))

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    axes[0].hist(code.ravel(), bins=50, color="tab:blue")
    axes[0].set(yscale="log", xlabel="activation", ylabel="count (log)")
    means, wide = code.mean(axis=0), 2 * model.rate
    bins = np.linspace(0, max(wide, means.max()), 41)
    axes[1].hist(means, bins=bins, color="tab:blue", label="units")
    axes[1].axvline(model.rate, color="black", linestyle="--", label="rate ρ")
    axes[1].set(xlabel="mean activation of a unit", ylabel="units")
    axes[1].legend(frameon=False)
    save("activations.png", figure)
    return {
        "loss.png": "The loss and the terms that it is made of.",
        "reconstructions.png": "Digits above, their reconstructions below.",
        "filters.png": "The weights of the 60 strongest units: red is +, blue is −.",
        "activations.png": "Most activations are near 0; each unit's mean is near ρ.",
    }


def _tiles(groups: list[np.ndarray], columns: int, cmap: str = "gray_r") -> Any:
    """Images of 8 x 8 pixels in a grid, each group below the one before."""
    import matplotlib.pyplot as plt

    images = np.concatenate(groups)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(0.65 * columns, 0.65 * rows), layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes.flat, images, strict=False):
        bound = abs(image).max() if cmap != "gray_r" else 1.0
        low = -bound if cmap != "gray_r" else 0.0
        axis.imshow(image.reshape(8, 8), cmap=cmap, vmin=low, vmax=bound)
    return figure


def _page(
    model: Any,
    history: dict[str, list[float]],
    checked: dict[str, float],
    pictures: dict[str, str],
) -> str:
    last = {name: values[-1] for name, values in history.items()}
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.6g}</td></tr>"
        for name, value in sorted(last.items())
    )
    figures = "".join(
        f"<figure><img src='{name}' alt='{line}'><figcaption>{line}</figcaption>"
        "</figure>"
        for name, line in pictures.items()
    )
    reloaded = ", ".join(f"{name} {value:.9g}" for name, value in checked.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>keras_penalties demo</title>
<style>body{{font:16px/1.5 sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}}
img{{max-width:100%}}figure{{margin:2rem 0}}td{{padding-right:2rem}}pre{{overflow:auto}}
</style>
<h1>A sparse autoencoder by plain Keras</h1>
<p>scikit-learn's 1,797 digits, Keras {keras.__version__} on
{keras.backend.backend()}, full batches by plain <code>fit</code>.</p>
<h2>The objective</h2><pre>{html.escape(str(terms(model)))}</pre>
<h2>Last epoch</h2><table>{rows}</table>
{figures}
<h2>Reloaded in a fresh process</h2>
<p>A new process computed the same numbers to the last digit: {reloaded}.</p>
</html>
"""


def _write_beside(path: Path, text: str) -> None:
    """Write a file completely or not at all, by a temporary file beside it."""
    beside = path.with_suffix(".partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
