"""What the tests of the losses share: values per sample, slopes, and exact inputs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from strategies import BACKEND, WIDE

from keras_penalties import autodiff
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


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled on JAX, which is slow one new op at a time."""
    if BACKEND != "jax":
        return function
    import jax

    return jax.jit(function)


@functools.cache
def _function(cls: type[Loss], config: str, derive: bool) -> Callable[..., Any]:
    """The loss, or its gradient."""
    loss = cls.from_config(json.loads(config))

    def function(y_true: Any, y_pred: Any) -> Any:
        if derive:
            return autodiff.gradient(lambda y: loss(y_true, y), y_pred)
        return loss(y_true, y_pred)

    return compiled(function)


def _result(
    loss: Loss, y_true: Any, y_pred: Any, derive: bool, **arguments: Any
) -> np.ndarray:
    config = json.dumps({**loss.get_config(), **arguments})
    y_pred = ops.convert_to_tensor(np.asarray(y_pred), arguments["dtype"])
    result = _function(type(loss), config, derive)(np.asarray(y_true), y_pred)
    return ops.convert_to_numpy(result).astype("float64")


def samples(loss: Loss, y_true: Any, y_pred: Any, dtype: str = WIDE) -> np.ndarray:
    """The loss before its reduction."""
    return _result(loss, y_true, y_pred, derive=False, reduction=None, dtype=dtype)


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
    return _result(loss, y_true, y_pred, derive=True, reduction="sum", dtype=dtype)


def close(actual: Any, expected: Any, loose: float = 1.0) -> None:
    """As near as the backend's widest dtype should come."""
    bound = BOUNDS[WIDE] * loose
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=bound)
