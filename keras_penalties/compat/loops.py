"""Loops in whose body a loss is not counted once a step of time.

- Replaced: `RNN.inner_loop` and `TimeDistributed.call`, to note that a layer inside is
  called in the body of a compiled loop. There `add_loss` is lost, or leaks a tracer, or
  counts one step twice, and nothing that the layer sees tells so.
- Needless when `test_a_loss_in_a_loop_is_miscounted` of `tests/test_needless.py` fails.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import keras

_loop: contextvars.ContextVar[str | None] = contextvars.ContextVar("loop", default=None)


def enclosing_loop() -> str | None:
    """The layer whose loop is running, in words, or None outside of such a loop."""
    return _loop.get()


def _noted(plain: Callable[..., Any], loops: Callable[..., bool]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = [*args, *kwargs.values()][0]  # the sequence comes first
        if not loops(self, inputs):
            return plain(self, *args, **kwargs)
        token = _loop.set(f"{type(self).__name__} '{self.name}'")
        try:
            return plain(self, *args, **kwargs)
        finally:
            _loop.reset(token)

    return method


def _note_loops() -> None:
    for cls, name, loops in (
        (keras.layers.RNN, "inner_loop", lambda rnn, x: not rnn.unroll),
        # Over a known number of steps Keras writes the steps out one by one.
        (keras.layers.TimeDistributed, "call", lambda _, x: x.shape[1] is None),
    ):
        plain = getattr(cls, name, None)
        if plain is not None:
            setattr(cls, name, _noted(plain, loops))


_note_loops()
