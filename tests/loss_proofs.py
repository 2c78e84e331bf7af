"""What the tests of the losses share: values per sample, slopes, and exact inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from strategies import WIDE

from keras_penalties import numerics
from keras_penalties.losses import Loss

BOUNDS = {"float32": 1e-5, "float64": 1e-12}
DTYPES = ["float32", "float64"] if WIDE == "float64" else ["float32"]


def normal(shape: Any, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Random numbers that float32 holds exactly, so that no input is rounded."""
    drawn = np.random.default_rng(seed).normal(size=shape) * scale
    return drawn.astype("float32").astype("float64")


def exactly(x: Any) -> np.ndarray:
    """The float32 numbers nearest to `x`, as float64."""
    return np.asarray(x, "float32").astype("float64")


def samples(loss: Loss, y_true: Any, y_pred: Any, dtype: str = WIDE) -> np.ndarray:
    """The loss before its reduction."""
    config = {**loss.get_config(), "reduction": None, "dtype": dtype}
    values = type(loss).from_config(config)(np.asarray(y_true), np.asarray(y_pred))
    return ops.convert_to_numpy(values).astype("float64")


def total(loss: Loss, y_true: Any, y_pred: Any) -> float:
    """The sum over the samples, as precisely as the backend can."""
    return float(np.sum(samples(loss, y_true, y_pred)))


def agrees(loss: Loss, y_true: Any, y_pred: Any, expected: Any) -> None:
    """To 1e-5 in float32, and to 1e-12 in float64 where Keras honours it."""
    for dtype in DTYPES:
        values, bound = samples(loss, y_true, y_pred, dtype), BOUNDS[dtype]
        expected = np.broadcast_to(expected, values.shape)
        np.testing.assert_allclose(values, expected, rtol=bound, atol=bound)


def slope(loss: Loss, y_true: Any, y_pred: Any, dtype: str = WIDE) -> np.ndarray:
    """The gradient of the sum over the samples."""
    config = {**loss.get_config(), "reduction": "sum", "dtype": dtype}
    summed = type(loss).from_config(config)
    y_pred = ops.convert_to_tensor(np.asarray(y_pred), dtype)
    gradient = numerics.gradient(lambda y: summed(np.asarray(y_true), y), y_pred)
    return ops.convert_to_numpy(gradient).astype("float64")


def close(actual: Any, expected: Any, loose: float = 1.0) -> None:
    """As near as the backend's widest dtype should come."""
    bound = BOUNDS[WIDE] * loose
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=bound)
