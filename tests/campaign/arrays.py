"""Float64 arrays with gradients, in a backend's own autodiff and nothing of Keras'.

`jax.grad`, `tf.GradientTape` or `torch.autograd`. The formulas of the recomputation are
written once, in the few functions that this file has for each backend. In float64 the
rounding of the recomputation is far below that of what it is compared with.

TensorFlow and torch recompute themselves. JAX compiles each operation for each shape,
which takes 15 seconds and 400 MB a model, so there torch recomputes, where it is
installed. `CAMPAIGN_AUTODIFF=jax` has JAX do it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any


class _Jax:
    def __init__(self) -> None:
        import jax

        self._jax, self._np = jax, jax.numpy
        for name in ("exp", "log", "tanh", "sqrt", "einsum", "where", "reshape"):
            setattr(self, name, getattr(jax.numpy, name))
        self.concat, self.stack = jax.numpy.concatenate, jax.numpy.stack
        self.stop = jax.lax.stop_gradient

    def precise(self) -> Any:
        return self._jax.enable_x64(True)

    def sum(self, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return self._np.sum(x, axis=axis, keepdims=keepdims)

    def array(self, x: Any) -> Array:
        return self._np.asarray(np.asarray(x, "float64"))

    def numpy(self, x: Array) -> np.ndarray:
        return np.asarray(x)

    def take(self, x: Array, places: np.ndarray) -> Array:
        return x[places]

    def grads(self, fn: Any, xs: Sequence[Array]) -> tuple[Any, list[Array]]:
        """What `fn` returns beside the value, and the gradients of the value."""
        gradients, rest = self._jax.grad(fn, has_aux=True)(list(xs))
        return rest, gradients

    def slope(self, fn: Callable[[Array], Array], x: Array) -> Array:
        return self._jax.grad(lambda x: self.sum(fn(x)))(x)


class _Tensorflow:
    def __init__(self) -> None:
        import tensorflow as tf

        self._tf = tf
        self.exp, self.log, self.tanh, self.sqrt = tf.exp, tf.math.log, tf.tanh, tf.sqrt
        self.einsum, self.stack = tf.einsum, tf.stack
        self.reshape, self.concat, self.stop = tf.reshape, tf.concat, tf.stop_gradient

    def precise(self) -> Any:
        return contextlib.nullcontext()

    def sum(self, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        return self._tf.reduce_sum(x, axis, keepdims)

    def where(self, condition: Any, x: Any, y: Any) -> Array:
        x, y = (self._tf.convert_to_tensor(t, "float64") for t in (x, y))
        return self._tf.where(condition, x, y)

    def array(self, x: Any) -> Array:
        return self._tf.constant(np.asarray(x, "float64"))

    def numpy(self, x: Array) -> np.ndarray:
        return np.asarray(x)

    def take(self, x: Array, places: np.ndarray) -> Array:
        return self._tf.gather(x, places)

    def grads(self, fn: Any, xs: Sequence[Array]) -> tuple[Any, list[Array]]:
        xs = list(xs)
        with self._tf.GradientTape() as tape:
            tape.watch(xs)
            value, rest = fn(xs)
        return rest, tape.gradient(value, xs, unconnected_gradients="zero")

    def slope(self, fn: Callable[[Array], Array], x: Array) -> Array:
        with self._tf.GradientTape() as tape:
            tape.watch(x)
            value = self.sum(fn(x))
        return tape.gradient(value, x, unconnected_gradients="zero")


class _Torch:
    def __init__(self) -> None:
        import torch

        self._torch = torch
        self.exp, self.log, self.tanh, self.sqrt = (
            torch.exp,
            torch.log,
            torch.tanh,
            torch.sqrt,
        )
        self.einsum, self.concat, self.stack = torch.einsum, torch.cat, torch.stack
        self.reshape = torch.reshape

    def precise(self) -> Any:
        return contextlib.nullcontext()

    def sum(self, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        if axis is None:
            return x.sum()
        return x if axis == () else x.sum(dim=axis, keepdim=keepdims)

    def where(self, condition: Any, x: Any, y: Any) -> Array:
        x, y = (self._torch.as_tensor(t, dtype=self._torch.float64) for t in (x, y))
        return self._torch.where(self._torch.as_tensor(condition), x, y)

    def stop(self, x: Array) -> Array:
        return x.detach()

    def array(self, x: Any) -> Array:
        return self._torch.tensor(np.asarray(x, "float64"))

    def numpy(self, x: Array) -> np.ndarray:
        return x.detach().numpy()

    def take(self, x: Array, places: np.ndarray) -> Array:
        return x[self._torch.as_tensor(places)]

    def grads(self, fn: Any, xs: Sequence[Array]) -> tuple[Any, list[Array]]:
        xs = [x.detach().requires_grad_() for x in xs]
        value, rest = fn(xs)
        rest = {name: x.detach() for name, x in rest.items()}
        if not value.requires_grad:
            return rest, [self._torch.zeros_like(x) for x in xs]
        found = self._torch.autograd.grad(value, xs, allow_unused=True)
        pairs = zip(xs, found, strict=True)
        return rest, [self._torch.zeros_like(x) if g is None else g for x, g in pairs]

    def slope(self, fn: Callable[[Array], Array], x: Array) -> Array:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        return self._torch.autograd.grad(self.sum(fn(x)), x, create_graph=True)[0]


BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")


def _own_or_torch() -> str:
    given = os.environ.get("CAMPAIGN_AUTODIFF")
    if given is None and BACKEND == "jax" and importlib.util.find_spec("torch"):
        return "torch"
    return given or BACKEND


AUTODIFF = _own_or_torch()
xp: Any = {"jax": _Jax, "tensorflow": _Tensorflow, "torch": _Torch}[AUTODIFF]()


def mean(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """The mean over axes."""
    total = xp.sum(x, axis, keepdims) if axis is not None else xp.sum(x)
    axes = range(len(x.shape)) if axis is None else np.atleast_1d(axis)
    return total / float(np.prod([x.shape[int(a)] for a in axes]))


def sign(x: Array) -> Array:
    """1, -1, and 0 at 0, without a gradient."""
    x = xp.stop(x)
    return xp.where(x > 0, 1.0, xp.where(x < 0, -1.0, 0.0))


def absolute(x: Array) -> Array:
    """|x|, with the slope 0 at 0."""
    return x * sign(x)


def positive(x: Array) -> Array:
    """max(x, 0), with the slope 0 at 0."""
    return xp.where(x > 0, x, 0.0 * x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + xp.exp(-x))


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = xp.exp(x - largest(x))
    return e / xp.sum(e, -1, True)


def log_sum_exp(x: Array) -> Array:
    """Over the last axis."""
    top = largest(x)
    return xp.log(xp.sum(xp.exp(x - top), -1)) + top[..., 0]


def largest(x: Array) -> Array:
    """The largest entry of the last axis, which is kept, without a gradient."""
    x, top = xp.stop(x), xp.stop(x)[..., :1]
    for i in range(1, int(x.shape[-1])):
        entry = x[..., i : i + 1]
        top = xp.where(entry > top, entry, top)
    return top
