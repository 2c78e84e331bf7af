"""Gradients by each backend's own means: the one place that knows how they differ."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

from keras_penalties.compat import differentiable
from keras_penalties.typing import Pullback, Tensor


def own_gradient(
    fn: Callable[[Tensor], tuple[Tensor, Pullback]],
) -> Callable[[Tensor], Tensor]:
    """A function with its own gradient: `fn` returns the value and the pullback."""

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def whole(x: Tensor) -> Any:
        value, pullback = fn(x)

        def backward(*args: Tensor, upstream: Tensor = None) -> Tensor:
            # torch passes `upstream` by name, after the arguments; the other backends
            # pass nothing else.
            return pullback(args[-1] if upstream is None else upstream)

        return value, backward

    return whole


def with_gradient(value: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    """The scalar `value`, whose gradient in `x` is the finite `slope` by decree."""
    still = ops.stop_gradient(slope) * (x - ops.stop_gradient(x))
    return ops.stop_gradient(value) + ops.sum(still)


def gradient(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient at `x` of a function that returns a scalar, itself differentiable.

    Keras 3.15 has no public `ops.grad`, and that of Keras 3.16 can't be differentiated
    again on torch. Only this module has code for single backends.
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
        with differentiable(), tf.GradientTape(persistent=True) as tape:
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


def _torch_value_and_pullback(
    fn: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Pullback]:
    import torch

    tracked = torch.is_grad_enabled()
    with torch.enable_grad(), differentiable():
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


def without_gradients() -> AbstractContextManager[None]:
    """A context in which torch keeps nothing for gradients. The others need none."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
