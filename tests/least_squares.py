"""Penalised least squares by proximal gradient descent: whole regressions as a test."""

from __future__ import annotations

import numpy as np
from keras import ops
from laws.book import array, tensor

from keras_penalties.compiling import compiled
from keras_penalties.penalties import Penalty


def regression(
    penalty: Penalty, features: np.ndarray, y: np.ndarray, steps: int = 400
) -> np.ndarray:
    """The minimiser of `½‖y - features·w‖² + strength·value(w)`."""
    step = 1.0 / np.linalg.norm(features, 2) ** 2
    gram, pull = tensor(step * features.T @ features), tensor(step * features.T @ y)
    w = tensor(np.zeros((features.shape[1], *y.shape[1:])))
    once = compiled(
        lambda w: penalty.prox(w - ops.matmul(gram, w) + pull, step * penalty.strength)
    )
    for _ in range(steps):
        w = once(w)
    return array(w)
