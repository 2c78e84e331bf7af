"""What a compiler is asked for: one pass over a large weight, and no idle work."""

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

    # Slices, as an embedding's gradient is, are as many as its batch has rows.
    whole = tf.inside_function() and not isinstance(x, tf.IndexedSlices)
    return whole and _is_large(x)


def _is_large(x: Tensor) -> bool:
    return None not in x.shape and math.prod(x.shape) >= 2**16


def read_first(value: Tensor, x: Tensor) -> Tensor:
    """The scalar `value` of a large `x`, whose slope waits for it on JAX.

    XLA gives a weight's memory to the next weight, if all that reads the first is known
    to be over; for a value that nothing waits for, it would copy the weight in each
    step. Here the slope reads the value too, in a choice between equals.
    """
    if keras.backend.backend() != "jax" or not _is_large(x):
        return value
    return ops.where(ops.isnan(value), value, value)


def fused(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`fn` of tensors of TensorFlow compiled whole, where no op takes its own pass."""
    import tensorflow as tf

    return tf.function(fn, jit_compile=True, autograph=False)


def in_step(value: Tensor, outputs: Any) -> tuple[Tensor, Any]:
    """Both as they are; the gradient of `value` waits for that of `outputs`.

    In a graph of TensorFlow the slope of a weight's penalty is ready at once, and would
    take memory until the loss's own gradient comes to the weight.
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
