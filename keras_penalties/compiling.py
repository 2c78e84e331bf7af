"""Requests to compilers: one pass over a large weight, and no needless work."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Hashable
from typing import Any

import keras
from keras import ops

from keras_penalties.compat import carry_mask, keras_mask
from keras_penalties.typing import Tensor

MOST = 64
"""How many times a process asks XLA on TensorFlow to compile what a weight needs.

XLA gives back nothing of what it compiled, also after `keras.backend.clear_session()`:
some 6 MiB each time. A program that trains models of ever new shapes would take ever
more memory. Beyond this number it goes on with plain functions, which take more passes
over memory.
"""


LARGE = 2**16
"""From so many entries on it pays to compile what takes several passes over a weight.

That is a proximal step, or a sum with several operations an entry, as that of `MCP`.
"""

LARGE_SUM = 2**20
"""From so many entries on, 4 MiB in float32, a sum of |x| or x² is compiled.

Compiling takes some 0.1 s for each shape, and a step is then as fast as before, within
3 %. What compiling saves is memory: a sum that is not compiled makes copies of the
weight, and keeps what its gradient needs.
"""

FEW = 8
"""Up to so many entries of a vector are read without a loop: see `apart`."""


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

        graph = tf.function(fn, autograph=False)

        @functools.wraps(fn)
        def run(*args: Any) -> Tensor:
            # A graph within another one would be kept after the other one is gone.
            return (fn if tf.inside_function() else graph)(*args)

        return run
    return fn


def in_turns(wanted: Tensor, value: Callable[[], Tensor], x: Any, dtype: Any) -> Tensor:
    """The scalar `value()` of `x` where it is wanted; else 0, nothing is computed."""
    if keras.backend.backend() == "jax":
        import jax

        # Without it the branch would also give out all that the gradient needs, and
        # where the value is not wanted these would be tensors of zeros.
        value = jax.checkpoint(value)

    def zero() -> Tensor:
        if keras.backend.backend() == "torch":
            # The sum of no entries of `x`, which has a gradient: torch refuses a loss
            # that has none, and this term may be all of the loss.
            none = [ops.reshape(t, (-1,))[:0] for t in keras.tree.flatten(x)]
            return sum(ops.cast(ops.sum(entries), dtype) for entries in none)
        return ops.zeros((), dtype)

    return ops.cond(wanted, value, zero)


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


def pays_to_fuse_sum(x: Tensor) -> bool:
    """Whether it pays to compile a sum of |x| or x², and its gradient."""
    return pays_to_fuse(x) and _is_large(x, LARGE_SUM)


def copies_halves(x: Tensor) -> bool:
    """Whether a sum over a large `x` in half floats would make a copy in float32.

    JAX decides by itself what it copies: on a GPU nothing; on a CPU, which has no half
    floats, XLA makes a copy also where the program takes blocks.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    half = dtype in ("bfloat16", "float16") and _is_large(x)
    return half and keras.backend.backend() != "jax"


def _is_large(x: Tensor, least: int = LARGE) -> bool:
    return None not in x.shape and math.prod(x.shape) >= least


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


def apart(vector: Tensor) -> list[Tensor]:
    """The entries of a vector that has no gradient, each as a scalar of its own.

    XLA would put the reading of an entry, with its place, into the update of the weight
    that the entry is for. No two updates would then be the same, and XLA would compile
    each one, where it compiles one for all weights of a shape. It moves nothing out of
    a loop, so on JAX the entries come from a loop of one step. XLA leaves out a loop
    that it knows to have one step, so the loop asks the vector, which is never NaN.
    """
    if keras.backend.backend() != "jax":
        return list(ops.unstack(vector))
    import jax

    vector = jax.lax.stop_gradient(vector)
    if not isinstance(vector, jax.core.Tracer) or len(vector) <= FEW:
        return list(vector)
    nothing = [jax.numpy.zeros((), vector.dtype)] * len(vector)
    _, entries = jax.lax.while_loop(
        lambda state: state[0],
        lambda state: (jax.numpy.isnan(vector[0]), list(vector)),
        (True, nothing),
    )
    return entries


def fused(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` of tensors of TensorFlow, compiled by XLA as one function."""
    import tensorflow as tf

    return tf.function(fn, jit_compile=True, autograph=False)


_count = itertools.count()
_kept: dict[Hashable, Callable[..., Tensor]] = {}


def may_compile() -> bool:
    """Whether XLA may compile for one more weight: the first `MOST` times."""
    return next(_count) < MOST


def kept(
    key: Hashable, make: Callable[[], Callable[..., Tensor]], plain: Callable[..., Any]
) -> Callable[..., Tensor]:
    """The one compiled function for a key, or `plain` where no more may be compiled."""
    if key not in _kept:
        if not may_compile():
            return plain
        _kept[key] = make()
    return _kept[key]


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
