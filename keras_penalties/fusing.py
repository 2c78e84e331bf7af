"""What a compiler is asked for: one pass over a large weight, and no idle work."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_penalties.numerics import Pullback, Tensor, gradient, own_gradient


def compiled(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` as one compiled step also in eager mode, for loops; plain on torch.

    Else JAX would compile a loop anew at each call, and TensorFlow run it op by op.
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
    """The scalar `value()`, computed only where it is wanted, and else 0."""
    if keras.backend.backend() == "jax":
        import jax

        # Else it would carry what the gradient needs out of the branch, as zeros too.
        value = jax.checkpoint(value)
    return ops.cond(wanted, value, lambda: ops.zeros((), dtype))


def pays_to_fuse(x: Tensor) -> bool:
    """Whether `x` is so large that passes over it cost more than a compilation does.

    Only in a graph of TensorFlow, which on a CPU runs op by op, each one a pass over
    memory. JAX fuses what it compiles by itself, and torch runs eagerly.
    """
    if keras.backend.backend() != "tensorflow" or sys.platform == "darwin":
        return False  # TensorFlow on macOS has no such compiler
    import tensorflow as tf

    return tf.inside_function() and None not in x.shape and math.prod(x.shape) >= 2**16


def fused(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` of tensors of TensorFlow compiled whole, where no op takes its own pass."""
    import tensorflow as tf

    return tf.function(fn, jit_compile=True, autograph=False)


def fused_sum(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`Σ fn(x)` over entries, on TensorFlow: one pass for it, one for its gradient.

    The gradient is computed from `x` anew, since to keep what it needs would take
    passes too.
    """

    def partial_sums(x: Tensor) -> Tensor:
        # One sum of all would be taken entry after entry; these go side by side.
        x = ops.reshape(x, (-1,))
        even = x.shape[0] // 2**14 * 2**14
        sums = ops.sum(fn(ops.reshape(x[:even], (64, -1, 256))), axis=1)
        return sums + ops.sum(fn(x[even:])) / 2**14

    def slope(x: Tensor, upstream: Tensor) -> Tensor:
        return upstream * gradient(lambda x: ops.sum(fn(x)), x)

    forward, backward = fused(partial_sums), fused(slope)

    @own_gradient
    def total(x: Tensor) -> tuple[Tensor, Pullback]:
        return ops.sum(forward(x)), lambda upstream: backward(x, upstream)

    return total
