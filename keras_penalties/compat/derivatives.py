"""Second derivatives through Keras' layers, where the backend has them wrong.

- At fault: the second derivative of `tf.nn.moments`, the third one of torch's
  `layer_norm`, and torch's fast attention, which has no second derivative at all.
  Neither backend has a public way to give a function another derivative.
- Replaced: the few functions of Keras that call these, once, at import. They do as
  before, except within `differentiable()`, in that thread alone. There, on torch, a
  public `TorchFunctionMode` takes our two functions for torch's. A mode around a whole
  network would be simpler, but would cost each tensor's `shape` and `dtype` too.
- Where Keras lacks such a function, as Keras 3.10 does, `tf.nn.moments` itself is
  replaced, or the mode is put around the whole network.
- Not reached: a layer of a user's own that calls the functions at fault itself.
- Needless when these tests of `tests/test_needless.py` fail:
  `test_the_second_derivative_of_moments_is_wrong_on_tensorflow`,
  `test_the_third_derivative_of_torchs_layer_norm_is_wrong`,
  `test_torchs_fast_attention_has_no_second_derivative`.
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

_within: contextvars.ContextVar[bool] = contextvars.ContextVar("within", default=False)


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Within it, Keras' layers call functions whose derivatives are all right."""
    token = _within.set(True)
    try:
        with contextlib.ExitStack() as stack:
            if _mode_for_all:
                stack.enter_context(_mode()())
            yield
    finally:
        _within.reset(token)


def moments(x: Tensor, axes: Any, keepdims: bool = False) -> tuple[Tensor, Tensor]:
    """As `tf.nn.moments`, which takes the mean in the variance for a constant."""
    mean = ops.mean(x, axes, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axes, keepdims=keepdims)
    return (mean if keepdims else ops.mean(x, axes)), variance


def layer_norm(
    x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """As `torch.nn.functional.layer_norm`."""
    mean, variance = moments(x, tuple(range(-len(shape), 0)), keepdims=True)
    x = (x - mean) * ops.rsqrt(variance + eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, by torch's plain kernel.

    `torch.nn.attention.sdpa_kernel` would choose this kernel for every thread at once.
    """
    import torch

    if attn_mask is not None and attn_mask.dtype == torch.bool:
        shut = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = shut.masked_fill(~attn_mask, -torch.inf)
    kernel = torch.ops.aten._scaled_dot_product_attention_math
    return kernel(query, key, value, attn_mask, dropout_p, is_causal, **kwargs)[0]


@functools.cache
def _mode() -> Callable[[], Any]:
    """The class of the mode of torch, which is in force in its own thread only."""
    import torch
    from torch.overrides import TorchFunctionMode

    functional = torch.nn.functional
    ours = {
        functional.layer_norm: layer_norm,
        functional.scaled_dot_product_attention: attention,
    }

    class Differentiable(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return ours.get(func, func)(*args, **(kwargs or {}))

    return Differentiable


def _takes_our_moments(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def chosen(x: Tensor, axes: Any, *args: Any, **kwargs: Any) -> Any:
        if not _within.get():
            return plain(x, axes, *args, **kwargs)
        return moments(x, axes, kwargs.get("keepdims", args[-1] if args else False))

    return chosen


def _enters_the_mode(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        if not _within.get():
            return plain(*args, **kwargs)
        with _mode()():
            return plain(*args, **kwargs)

    return chosen


def _replace(
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]], *places: tuple[str, str]
) -> bool:
    """Wrap the function at the first of the places that has one: whether there is."""
    for module, name in places:
        with contextlib.suppress(ImportError, AttributeError):
            owner = importlib.import_module(module)
            setattr(owner, name, wrap(getattr(owner, name)))
            return True
    return False


_mode_for_all = False
if keras.backend.backend() == "tensorflow":
    _replace(
        _takes_our_moments,
        ("keras.src.backend.tensorflow.nn", "_compute_moments"),  # before Keras 3.16
        ("keras.src.backend.tensorflow.ops.nn", "_compute_moments"),
        ("tensorflow.nn", "moments"),
    )
elif keras.backend.backend() == "torch":
    found = [
        _replace(_enters_the_mode, ("keras.src.ops.nn", "_layer_normalization")),
        _replace(
            _enters_the_mode,
            ("keras.src.backend.torch.nn", "dot_product_attention"),
            ("keras.src.backend.torch.ops.nn", "dot_product_attention"),
        ),
    ]
    _mode_for_all = not all(found)
    wrapper = keras.layers.TorchModuleWrapper
    wrapper.call = _enters_the_mode(wrapper.call)
