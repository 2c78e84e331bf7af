"""Requests to compilers: one pass over a large weight, and no needless work."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_penalties.compat import carry_mask, keras_mask
from keras_penalties.typing import Tensor


def compiled(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` compiled, for loops: also where it is called in eager mode. Plain on torch.

    Without it JAX would compile a loop again at each call in eager mode, and TensorFlow
    would run the loop op by op.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(fn)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, autograph=False)
    return fn


def in_turns(wanted: Tensor, value: Callable[[], Tensor], dtype: Any) -> Tensor:
    """The scalar `value()` where it is wanted; else 0, and nothing is computed."""
    if keras.backend.backend() == "jax":
        import jax

        # Without it the branch would also give out all that the gradient needs, and
        # where the value is not wanted these would be tensors of zeros.
        value = jax.checkpoint(value)
    return ops.cond(wanted, value, lambda: ops.zeros((), dtype))


def pays_to_fuse(x: Tensor) -> bool:
    """Whether it pays to compile a computation on `x` into few passes over memory.

    It pays only for a large `x`, and only in a graph of TensorFlow, which on a CPU runs
    op by op, each a pass over memory. JAX fuses by itself what it compiles, and torch
    runs eagerly.
    """
    if keras.backend.backend() != "tensorflow" or sys.platform == "darwin":
        return False  # TensorFlow on macOS has no such compiler
    import tensorflow as tf

    # An embedding's gradient has a number of slices that changes with the batch.
    dense = not isinstance(x, tf.IndexedSlices)
    return tf.inside_function() and dense and _is_large(x)


def _is_large(x: Tensor) -> bool:
    return None not in x.shape and math.prod(x.shape) >= 2**16


def read_first(value: Tensor, x: Tensor) -> Tensor:
    """The scalar `value` of `x`. On JAX the gradient of a large `x` waits for it.

    XLA writes the new weight into the memory of the old one only where it knows that
    nothing reads the old one later. Nothing would wait for the value, so XLA would copy
    the weight in each step. The `where` below, whose two branches are the same, makes
    the gradient depend on the value, so that the value is computed first.
    """
    if keras.backend.backend() != "jax" or not _is_large(x):
        return value
    return ops.where(ops.isnan(value), value, value)


def fused(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` of tensors of TensorFlow, compiled by XLA as one function."""
    import tensorflow as tf

    return tf.function(fn, jit_compile=True, autograph=False)


def in_step(value: Tensor, outputs: Any) -> tuple[Tensor, Any]:
    """Both unchanged, except that the gradient of `value` waits for that of `outputs`.

    A graph of TensorFlow could compute the gradient of a weight's penalty at once. It
    would then take memory until the gradient of the loss reaches the weight.
    """
    import tensorflow as tf

    given = keras.tree.flatten(outputs)
    if not all(tf.is_tensor(x) and x.dtype.is_floating for x in given):
        return value, outputs

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def both(value: Tensor, *tensors: Tensor) -> Any:
        def pullback(upstream: Tensor, *slopes: Tensor) -> tuple[Tensor, ...]:
            with tf.control_dependencies(slopes):
                return tf.identity(upstream), *slopes

        return (value, *map(tf.identity, tensors)), pullback

    value, *tensors = both(value, *given)
    masked = [carry_mask(x, keras_mask(y)) for x, y in zip(tensors, given, strict=True)]
    return value, keras.tree.pack_sequence_as(outputs, masked)
