"""Maths that is right on every backend: kinks, tiny and huge values, thresholds.

Autodiff of the plain formulas differs between backends at a kink (|x| at 0 has
slope 1 on JAX, 0 on TensorFlow and torch; a norm at 0 gives NaN). Every penalty
is written with the functions here, whose subgradient at a kink is 0.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

Tensor: TypeAlias = Any
"""A tensor of the active backend. Keras has no static type for it."""


def widened(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it came so: half floats overflow in sums."""
    x = ops.convert_to_tensor(x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)  # Keras lets a `tf.Variable` through
    dtype = keras.backend.standardize_dtype(x.dtype)
    return x if dtype in ("float32", "float64") else ops.cast(x, "float32")


Pullback: TypeAlias = Callable[[Tensor], Tensor]
"""From the gradient in a function's value to that in its argument."""


def own_gradient(
    fn: Callable[[Tensor], tuple[Tensor, Pullback]],
) -> Callable[[Tensor], Tensor]:
    """The function whose value and pullback `fn` gives, however Keras calls that."""

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def whole(x: Tensor) -> Any:
        value, pullback = fn(x)

        def backward(*args: Tensor, upstream: Tensor = None) -> Tensor:
            # torch gives it by name, after the arguments; the others alone.
            return pullback(args[-1] if upstream is None else upstream)

        return value, backward

    return whole


def absolute(x: Tensor) -> Tensor:
    """|x| with slope 0 at 0, where that of JAX is 1."""
    return _absolute(x) if keras.backend.backend() == "jax" else ops.absolute(x)


@own_gradient
def _absolute(x: Tensor) -> tuple[Tensor, Pullback]:
    return ops.absolute(x), lambda upstream: upstream * ops.sign(x)


def positive_part(x: Tensor) -> Tensor:
    """max(x, 0) with slope 0 at 0. NaN stays NaN."""
    return ops.where(x <= 0, ops.zeros_like(x), x)


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """sign(x)·max(|x| - threshold, 0): the proximal map of |x|."""
    return x - ops.clip(x, -threshold, threshold)


def bounded(x: Tensor, bound: float = 30.0) -> Tensor:
    """`x` held within ±bound, with slope 1 everywhere.

    For a log-parameter, so that its exp and the square of that are finite, and a
    parameter that has left the range is still drawn back by its gradient.
    """
    inside = ops.stop_gradient(ops.clip(x, -bound, bound))
    return inside + (x - ops.stop_gradient(x))


def stirling_error(x: Tensor) -> Tensor:
    """`log Γ(x) − [(x − ½)·log x − x + ½·log 2π]` for x > 0, with its gradient.

    Keras has no log-gamma. Log-likelihoods are differences of it, and these lose no
    digits when the bracket is cancelled on paper and only this small rest is computed.
    """
    small = x < 8.0
    # Below 8, from the value at x + 8: Γ(x + 8) = x·(x + 1)·…·(x + 7)·Γ(x).
    low = ops.where(small, x, ops.ones_like(x))
    high = ops.where(small, low + 8.0, x)
    steps = math.prod((low + k) / (low + 8.0) for k in range(8))
    shift = (low - 0.5) * ops.log1p(8.0 / low) - 8.0 - ops.log(steps)
    inverse = 1.0 / high
    series = ops.zeros_like(x)
    for coefficient in reversed(_STIRLING_SERIES):
        series = series * ops.square(inverse) + coefficient
    return series * inverse + ops.where(small, shift, ops.zeros_like(x))


# Bernoulli numbers: B(2k) / (2k·(2k − 1)).
_STIRLING_SERIES = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)


def norm(
    x: Tensor, axis: int | Sequence[int] | None = None, keepdims: bool = False
) -> Tensor:
    """The Euclidean norm over `axis`, with gradient 0 at 0 and no overflow inside."""
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    largest = ops.stop_gradient(ops.max(ops.absolute(x), axis=axis, keepdims=True))
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x / scale), axis=axis, keepdims=True)
    # Both branches of a `where` are differentiated: sqrt must never see a 0.
    zero = squares == 0
    root = ops.sqrt(ops.where(zero, ops.ones_like(squares), squares))
    result = scale * ops.where(zero, ops.zeros_like(squares), root)
    return result if keepdims else ops.squeeze(result, axis)


def as_matrix(x: Tensor) -> Tensor:
    """A weight of any rank as (all other axes, output axis), usual for kernels."""
    return ops.reshape(x, (-1, x.shape[-1]))


def as_rows(x: Tensor, axis: int | Sequence[int] | None) -> Tensor:
    """(vectors, entries): one vector for each index on `axis`; None is one vector."""
    order, count = index_first(x, axis)
    sizes = [x.shape[a] for a in order]  # in a graph the batch has None
    if None in sizes[:count]:
        shape = -1, math.prod(sizes[count:])
    else:
        shape = math.prod(sizes[:count]), -1
    return ops.reshape(ops.transpose(x, order), shape)


def from_rows(rows: Tensor, like: Tensor, axis: int | Sequence[int] | None) -> Tensor:
    """What `as_rows` took apart, in the shape of `like`."""
    order, _ = index_first(like, axis)
    shape = [like.shape[a] for a in order]
    return ops.transpose(
        ops.reshape(rows, shape), [*map(order.index, range(len(order)))]
    )


def index_first(x: Tensor, axis: int | Sequence[int] | None) -> tuple[list[int], int]:
    """The axes, those of `axis` first, and how many these are."""
    given = () if axis is None else (axis,) if isinstance(axis, int) else axis
    rank = len(x.shape)
    for a in given:
        if not -rank <= a < rank:
            raise ValueError(f"There is no axis {a} in shape {tuple(x.shape)}.")
    first = [a % rank for a in given]
    return [*first, *(a for a in range(rank) if a not in first)], len(first)


def with_gradient(value: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    """The scalar `value`, whose gradient in `x` is the finite `slope` by decree."""
    still = ops.stop_gradient(slope) * (x - ops.stop_gradient(x))
    return ops.stop_gradient(value) + ops.sum(still)


def gradient(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient at `x` of a function that returns a scalar, itself differentiable.

    Keras 3.15 has no public `ops.grad`, and that of 3.16 can't be differentiated again
    on torch: this is the one place that knows backends.
    """
    return value_and_gradient(fn, x)[1]


def jacobian(value: Tensor, pullback: Pullback, outputs: int) -> Tensor:
    """Each sample's Jacobian, (batch, outputs, *its shape), a pullback per output.

    `value` is (batch, ...), `outputs` entries of a sample in all, each of which depends
    on its own sample only.
    """
    shape = ops.shape(value)

    def along(unit: Tensor) -> Tensor:
        rows = ops.broadcast_to(unit, (shape[0], outputs))
        return pullback(ops.reshape(rows, shape))

    units = ops.unstack(ops.eye(outputs, dtype=value.dtype))
    return ops.stack([along(unit) for unit in units], axis=1)


def value_and_gradient(
    fn: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """The scalar `fn(x)` and its gradient, both differentiable."""
    value, pullback = value_and_pullback(fn, x)
    return value, pullback(ops.ones_like(value))


def value_and_pullback(
    fn: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Pullback]:
    """The tensor `fn(x)` and its pullback, both differentiable."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        value, pullback = jax.vjp(fn, ops.convert_to_tensor(x))
        return value, lambda upstream: pullback(upstream)[0]
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with (
            _replaced(tf.nn, "moments", _moments),
            tf.GradientTape(persistent=True) as tape,
        ):
            tape.watch(x)
            value = fn(x)
        return value, lambda upstream: tape.gradient(
            value, x, upstream, unconnected_gradients="zero"
        )
    if backend == "torch":
        return _torch_value_and_pullback(fn, x)
    raise NotImplementedError(
        f"Input gradients need TensorFlow, JAX or torch. The backend is '{backend}'."
    )


@contextlib.contextmanager
def _replaced(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    plain = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, plain)


def _moments(
    x: Tensor, axes: Any, shift: Any = None, keepdims: bool = False, name: Any = None
) -> tuple[Tensor, Tensor]:
    """For `tf.nn.moments`, whose variance takes its mean for a constant.

    So its first derivative is right, and its second is wrong.
    """
    mean = ops.mean(x, axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axes, keepdims=keepdims)
    return (mean if keepdims else ops.mean(x, axes)), variance


def _layer_norm(
    x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """For `torch.nn.functional.layer_norm`, whose third derivative is wrong."""
    mean, variance = _moments(x, tuple(range(-len(shape), 0)), keepdims=True)
    x = (x - mean) * ops.rsqrt(variance + eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _torch_value_and_pullback(
    fn: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Pullback]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tracked = torch.is_grad_enabled()
    # torch's fast attention has no second derivative.
    with (
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        _replaced(torch.nn.functional, "layer_norm", _layer_norm),
    ):
        x = ops.convert_to_tensor(x)
        if not x.requires_grad:
            x = x.detach().requires_grad_(True)
        value = fn(x)

    def pullback(upstream: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(x)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(
                value,
                x,
                upstream,
                retain_graph=True,
                create_graph=tracked,
                allow_unused=True,
            )
        slope = torch.zeros_like(x) if slope is None else slope
        return slope if tracked else slope.detach()

    return value if tracked else value.detach(), pullback
