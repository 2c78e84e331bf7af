"""What a trained autoencoder of the demo has learned, as arrays and as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What the report shows of one model. Everything is on digits that it never saw."""

    history: Any
    filters: np.ndarray
    """What each hidden unit adds to the picture before the sigmoid, (units, 64)."""
    code: np.ndarray
    """The activations, (digits, units)."""
    rebuilt: np.ndarray
    explained: float
    """The share of the digits' variance that the reconstruction explains."""


def of(
    model: keras.Model, history: Any, seen: np.ndarray, unseen: np.ndarray
) -> Outcome:
    """The outcome of a trained model."""
    encoder = keras.Model(model.inputs, model.get_layer("encoder").output)
    rebuilt = model.predict(unseen, batch_size=len(unseen), verbose=0)
    left = np.square(unseen - rebuilt).sum()
    return Outcome(
        history,
        keras.ops.convert_to_numpy(model.get_layer("decoder").kernel),
        encoder.predict(unseen, batch_size=len(unseen), verbose=0),
        rebuilt,
        float(1.0 - left / np.square(unseen - seen.mean(axis=0)).sum()),
    )


def table(plain: Outcome, penalized: Outcome) -> list[tuple[str, ...]]:
    """The figures of both models side by side, the first row their head."""

    def row(
        name: str, figure: Callable[[Outcome], float], form: str
    ) -> tuple[str, ...]:
        return name, format(figure(plain), form), format(figure(penalized), form)

    active = f"active units in one digit (above 0.5), of {len(plain.filters)}"
    return [
        ("on digits that were not trained on", "without penalties", "with penalties"),
        row("mean activation of the hidden units", lambda o: o.code.mean(), ".3f"),
        row(active, lambda o: (o.code > 0.5).sum(axis=1).mean(), ".1f"),
        row("decoder weights below −0.01", lambda o: (o.filters < -0.01).mean(), ".0%"),
        row("share of the variance that is rebuilt", lambda o: o.explained, ".1%"),
    ]
