"""The demo: one autoencoder, trained without and with penalties, and a report."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np

from keras_penalties.demo import experiment, outcome, page, pictures, reload
from keras_penalties.demo.experiment import STEPS, FullBatches
from keras_penalties.files import replacing
from keras_penalties.tables import text_table
from keras_penalties.terms import terms

__all__ = ["EPOCHS", "STEPS", "FullBatches", "run"]

EPOCHS = 40
"""Epochs of the demo: 2,000 steps."""


def run(out: Path, epochs: int = EPOCHS) -> Path:
    """Train on scikit-learn's digits without and with penalties, and write the report.

    Args:
        out: The folder for the report, the pictures and the model. Created if needed.
        epochs: Epochs of 50 full-batch steps, 1 or more. Default 40.

    Returns:
        The report's path, `out/report.html`.

    Raises:
        RuntimeError: if the model that a fresh process loads differs from this one.
    """
    import matplotlib.figure  # noqa: F401  what misses it says so now, not at the end
    from sklearn.datasets import load_digits

    out.mkdir(parents=True, exist_ok=True)
    digits = (load_digits().data / 16.0).astype("float32")
    seen, unseen = digits[:1500], digits[1500:]
    print(f"Trains one autoencoder twice, {epochs * STEPS:,} steps each.", flush=True)
    (plain, its_history), (model, history) = experiment.both(seen, epochs)
    before = outcome.of(plain, its_history, seen, unseen)
    after = outcome.of(model, history, seen, unseen)
    objective, table = str(terms(model)), outcome.table(before, after)
    print(f"\n{objective}\n\n{text_table(table)}\n", flush=True)
    captions = pictures.draw(before, after, unseen, out)

    with replacing(out / "model.keras") as new:
        model.save(new)
    with replacing(out / "digits.npz") as new:
        np.savez_compressed(new, x=seen)
    reloaded = reload.sentence(reload.differences(model, out))
    print(reloaded)

    report = out / "report.html"
    code = inspect.getsource(experiment)
    with replacing(report) as new:
        text = page.report(table, captions, objective, code, reloaded)
        new.write_text(text, "utf-8")
    print(f"Report: {report}")
    return report
