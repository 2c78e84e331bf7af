"""Gradients by each backend's own means: the one place that knows how they differ."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_penalties.compat import exact_moments, moments
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
        with exact_moments(), tf.GradientTape(persistent=True) as tape:
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


def _layer_norm(
    x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """For `torch.nn.functional.layer_norm`, whose third derivative is wrong."""
    mean, variance = moments(x, tuple(range(-len(shape), 0)), keepdims=True)
    x = (x - mean) * ops.rsqrt(variance + eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """For torch's attention, whose fast kernels have no second derivative.

    `torch.nn.attention.sdpa_kernel` would choose this kernel for every thread at once.
    """
    import torch

    if attn_mask is not None and attn_mask.dtype == torch.bool:
        shut = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = shut.masked_fill(~attn_mask, -torch.inf)
    kernel = torch.ops.aten._scaled_dot_product_attention_math
    return kernel(query, key, value, attn_mask, dropout_p, is_causal, **kwargs)[0]


@functools.cache
def _differentiable_mode() -> Callable[[], Any]:
    """The class of a mode of torch: in its own thread, our two functions are called."""
    import torch
    from torch.overrides import TorchFunctionMode

    ours = {
        torch.nn.functional.layer_norm: _layer_norm,
        torch.nn.functional.scaled_dot_product_attention: _attention,
    }

    class Differentiable(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return ours.get(func, func)(*args, **(kwargs or {}))

    return Differentiable


def _torch_value_and_pullback(
    fn: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Pullback]:
    import torch

    tracked = torch.is_grad_enabled()
    mode = _differentiable_mode()
    with torch.enable_grad(), mode():
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
