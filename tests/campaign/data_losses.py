"""The data losses, written a second time: masks, weights and unknown targets too."""

from __future__ import annotations

import numpy as np

from campaign.arrays import Array, log_sum_exp, positive, xp
from campaign.describe import CLASSES, Loss
from campaign.forward import Tensor


def data_loss(
    loss: Loss, prediction: Tensor, target: np.ndarray, weight: np.ndarray | None
) -> Array:
    """The mean of the values of the samples that are real and known."""
    known = np.isfinite(target) if loss.ignore else np.ones(target.shape, bool)
    y = xp.array(np.where(known, target, 0.0))
    p, rows = prediction.x, target.shape[:2] if len(prediction.x.shape) == 3 else None
    real = np.ones(rows or target.shape[:1], bool)
    if loss.kind == "crossentropy":
        place = np.eye(CLASSES)[target]
        values = log_sum_exp(p) - xp.sum(p * xp.array(place), -1)
    else:
        if loss.kind == "mse":  # no loss by features: all must be known
            known = np.broadcast_to(known.all(-1, keepdims=True), known.shape)
        share = known / np.maximum(known.sum(-1, keepdims=True), 1)
        values = {
            "mse": lambda e: e * e * xp.array(share),
            "half": lambda e: 0.5 * e * e * xp.array(known),
            "pinball": lambda e: _pinball(e) * xp.array(share),
        }[loss.kind](y - p)
        values = xp.sum(values, -1)
        real = real & known.any(-1)
    if prediction.mask is not None:
        real = real & prediction.mask
    count = max(real.sum(), 1)
    factor = real.astype("float64") * (1.0 if weight is None else weight)
    return xp.sum(values * xp.array(factor)) / float(count)


def _pinball(error: Array) -> Array:
    return 0.3 * positive(error) + 0.7 * positive(-error)
