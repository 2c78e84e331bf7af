"""Second derivatives through normalization layers on TensorFlow.

- Replaced: `_compute_moments` of Keras' TensorFlow backend, once, at import. It calls
  `tf.nn.moments`, whose variance takes its mean for a constant, so that its second
  derivative is wrong, also in BatchNormalization, LayerNormalization and
  GroupNormalization. TensorFlow has no public way to give a function another
  derivative. The replacement does the same as Keras' function, except inside
  `exact_moments()`, and there only in the thread that entered it.
- Where Keras has no `_compute_moments`, `tf.nn.moments` itself is replaced in the same
  way.
- Needless when `test_the_second_derivative_of_moments_is_wrong_on_tensorflow` of
  `tests/test_needless.py` fails.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_penalties.typing import Tensor

_PLACES = (
    ("keras.src.backend.tensorflow.nn", "_compute_moments"),  # before Keras 3.16
    ("keras.src.backend.tensorflow.ops.nn", "_compute_moments"),
    ("tensorflow.nn", "moments"),
)
_exact: contextvars.ContextVar[bool] = contextvars.ContextVar("exact", default=False)


def moments(x: Tensor, axes: Any, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance, with every derivative right."""
    mean = ops.mean(x, axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axes, keepdims=keepdims)
    return (mean if keepdims else ops.mean(x, axes)), variance


@contextlib.contextmanager
def exact_moments() -> Iterator[None]:
    """Within it, layers on TensorFlow take moments whose derivatives are all right."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def _chooses(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def chosen(x: Tensor, axes: Any, *args: Any, **kwargs: Any) -> Any:
        if not _exact.get():
            return plain(x, axes, *args, **kwargs)
        keepdims = kwargs.get("keepdims", args[-1] if args else False)
        return moments(x, axes, keepdims)

    return chosen


def _choose_by_thread() -> None:
    for module_name, name in _PLACES:
        with contextlib.suppress(ImportError, AttributeError):
            module = importlib.import_module(module_name)
            setattr(module, name, _chooses(getattr(module, name)))
            return


if keras.backend.backend() == "tensorflow":
    _choose_by_thread()
