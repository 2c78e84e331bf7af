"""What is private in Keras: the only module that uses `keras.src`, and why.

- The tables of string names: `keras.losses.get(str)` reads nothing else (keras#20112).
- `Model.compile_from_config`, wrapped: a loss given as `package>Name` is loaded as the
  class, and a model whose loss is a class can't be saved again.
- `Model.predict_step` and `Model.export`, wrapped: nothing is computed for the losses.
- `AutocastScope(None)`: in mixed precision a weight read in `call` comes in float16.
- The stateless scope and `_loss_ids`: Keras on JAX loses and miscounts `add_loss`.
- The masks of tensors, and the scaling of losses for `tf.distribute`: for `AddLoss`.
- `_layers` and the lists of variables: which layer holds a weight, or another layer.
- The optimizers' update and state: a proximal step belongs right after the update.
- The graph of a Functional model, also the one in a Sequential: who reads which tensor.
- The code of `Layer.__call__`: Keras >= 3.14 divides the activity slot by the batch.

`tests/test_compat.py` fails when Keras makes one of these needless.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

try:
    from keras.src import losses as _keras_losses
    from keras.src import regularizers as _keras_regularizers
    from keras.src.backend import AutocastScope as _AutocastScope
    from keras.src.backend import get_keras_mask as _get_keras_mask
    from keras.src.backend import set_keras_mask as _set_keras_mask
    from keras.src.backend.common.stateless_scope import (
        get_stateless_scope as _get_stateless_scope,
    )
    from keras.src.losses.loss import (
        unscale_loss_for_distribution as _unscale_loss_for_distribution,
    )
    from keras.src.models.functional import Functional as _Functional
    from keras.src.models.functional import (
        functional_like_constructor as _functional_like_constructor,
    )

    _TABLES: dict[str, dict[str, Any]] = {
        "loss": _keras_losses.ALL_OBJECTS_DICT,
        "penalty": _keras_regularizers.ALL_OBJECTS_DICT,
    }
except (ImportError, AttributeError) as error:
    raise ImportError(
        f"keras_penalties does not know Keras {keras.__version__}: {error}. It uses a "
        "few private parts of Keras, all in keras_penalties/compat.py; install a "
        "Keras release that its pyproject.toml admits, or report this one."
    ) from error


def string_names(kind: str) -> dict[str, Any]:
    """Keras' own table of string names for losses and for regularizers, else empty."""
    return _TABLES.get(kind, {})


def add_string_names(kind: str, obj: Any, names: list[str]) -> None:
    """Let `compile(loss=name)` or a regularizer slot find `obj` by these names."""
    if kind in _TABLES:
        _TABLES[kind].update(dict.fromkeys(names, obj))


def _keys_as_configs(loss: Any) -> Any:
    """A saved loss argument, its `package>Name` strings replaced by their configs."""
    if isinstance(loss, list):
        return [_keys_as_configs(item) for item in loss]
    if isinstance(loss, dict) and "class_name" not in loss:
        return {name: _keys_as_configs(item) for name, item in loss.items()}
    found = keras.saving.get_registered_object(loss) if isinstance(loss, str) else None
    if inspect.isclass(found) and issubclass(found, keras.losses.Loss):
        return keras.saving.serialize_keras_object(found())
    return loss


def _mend_loading_of_loss_keys() -> None:
    plain = keras.Model.compile_from_config

    @functools.wraps(plain)
    def compile_from_config(self: Any, config: dict[str, Any]) -> None:
        if "loss" in config:
            config = {**config, "loss": _keys_as_configs(config["loss"])}
        plain(self, config)

    keras.Model.compile_from_config = compile_from_config


_mend_loading_of_loss_keys()


def full_precision() -> AbstractContextManager[None]:
    """Within it a weight read in `call` has its own dtype, also in its gradient."""
    scope: AbstractContextManager[None] = _AutocastScope(None)
    return scope


_LAYER_CALL = getattr(keras.layers.Layer.__call__, "__wrapped__", None)
_SLOT_DIVIDES = tuple(int(n) for n in keras.__version__.split(".")[:2]) >= (3, 14)


def slot_divisor(output: Any) -> Any:
    """What Keras' activity slot is about to divide the caller's caller's value by.

    1 unless the caller was called by the slot itself. A batch statistic multiplies by
    it, so that the slot gives the same value for every batch size and Keras version.
    """
    if _LAYER_CALL is None or not _SLOT_DIVIDES or len(output.shape) == 0:
        return 1.0
    # 0 is here, 1 is Penalty.__call__, 2 is whoever applies the penalty.
    if sys._getframe(2).f_code is not _LAYER_CALL.__code__:
        return 1.0
    return ops.shape(output)[0]


class LossLedger:
    """A layer's own record of the losses that it added in the present forward pass.

    On JAX, Keras finds a layer's losses by `id()`, of tensors that it lets go of: a
    new tensor can take an old id and be counted by the wrong layer. And each call of
    a layer drops what its earlier calls in the same pass added, so a shared layer
    counts its last call only. The ledger keeps the tensors alive for as long as their
    ids are registered, and puts back what was dropped.
    """

    def __init__(self) -> None:
        self._scope: Any = None
        self._losses: list[Any] = []

    def is_open(self, layer: Any) -> bool:
        """Whether the layer has added a loss in this forward pass already."""
        scope = _get_stateless_scope()
        if scope is not None:
            return scope is self._scope
        return any(x is y for x in self._losses for y in layer._losses)

    def add(self, layer: Any, losses: list[Any]) -> None:
        """`layer.add_loss` for each, counted exactly once in this forward pass."""
        if not self.is_open(layer):
            self._scope, self._losses = _get_stateless_scope(), []
        if self._scope is not None:
            held = {id(x) for x in self._scope.losses}
            for earlier in self._losses:
                if id(earlier) in held:
                    layer._loss_ids.add(id(earlier))
                else:
                    layer.add_loss(earlier)
        for loss in losses:
            layer.add_loss(loss)
            self._losses.append(loss)


def sync_state(model: Any) -> None:
    """Within an epoch on JAX: give the weights their present values.

    It also lets what is assigned to them now reach the next step.
    """
    sync = getattr(model, "jax_state_sync", None)
    if sync is not None:
        sync()


def in_stateless_scope() -> bool:
    """Whether Keras runs a layer as a pure function, as it does on JAX."""
    return _get_stateless_scope() is not None


_unread: contextvars.ContextVar[bool] = contextvars.ContextVar("unread", default=False)


def _note_where_losses_are_unread() -> None:
    """`predict` and `export` call a model as an evaluation does, and read no losses."""

    def noted(plain: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(plain)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            token = _unread.set(True)
            try:
                return plain(self, *args, **kwargs)
            finally:
                _unread.reset(token)

        return method

    for name in ("predict_step", "export"):
        setattr(keras.Model, name, noted(getattr(keras.Model, name)))


_note_where_losses_are_unread()


def losses_wanted() -> bool:
    """Whether anybody will read the losses of this call."""
    scope = _get_stateless_scope()
    return not _unread.get() and (scope is None or bool(scope.collect_losses))


def keras_mask(x: Any) -> Any:
    """The mask that travels with a tensor, or None."""
    return _get_keras_mask(x)


def carry_mask(x: Any, mask: Any) -> Any:
    """`x`, with that mask to travel with it, if there is one."""
    if mask is not None:
        _set_keras_mask(x, mask)
    return x


def undistributed(loss: Any) -> Any:
    """A reduced loss, multiplied by the number of replicas, to be added.

    Under `tf.distribute` Keras divides each added loss by that number. A mean is
    divided already when the loss reduces it, and a sum is not to be divided at all.
    """
    return _unscale_loss_for_distribution(loss)


def replicated() -> bool:
    """Whether a `tf.distribute` strategy is at work."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def flat_layers(layer: Any) -> list[Any]:
    """The layer and all layers inside it, each once, in the order they were added."""
    seen: dict[int, Any] = {}

    def visit(node: Any) -> None:
        if id(node) not in seen:
            seen[id(node)] = node
            for child in node._layers:
                visit(child)

    visit(layer)
    return list(seen.values())


def own_weights(layer: Any) -> list[Any]:
    """The weights that the layer itself holds, without those of layers inside it."""
    weights: list[Any] = layer._trainable_variables + layer._non_trainable_variables
    return weights


def around_update(
    optimizer: Any,
    around: Callable[[Callable[[], None], Sequence[Any], Sequence[Any], Any], None],
) -> None:
    """Let `around(update, gradients, variables, rate)` call the optimizer's updates.

    There is no other place between the update and the moving average. Keras' update on
    torch is one for all weights; elsewhere it is one for each, and on TensorFlow it
    runs where a distributed weight may be assigned.
    """
    name = "update_step"
    if keras.backend.backend() == "torch":
        name = "_backend_update_step"
    original = getattr(optimizer, name)
    if isinstance(original, functools.partial):
        raise ValueError(
            f"The optimizer '{optimizer.name}' is already the inner optimizer of "
            "another one. Make a new one, or one from its config."
        )
    # A partial, unlike a closure, follows the optimizer into a deep copy.
    setattr(optimizer, name, functools.partial(_updated, original, around))


def _updated(
    original: Callable[..., None],
    around: Callable[..., None],
    gradient: Any,
    variable: Any,
    learning_rate: Any,
) -> None:
    update = functools.partial(original, gradient, variable, learning_rate)
    if keras.backend.backend() != "torch":
        around(update, [gradient], [variable], learning_rate)
        return
    import torch

    with torch.no_grad():
        around(update, gradient, variable, learning_rate)


def flat_optimizers(optimizer: Any) -> list[Any]:
    """The optimizer and those inside it."""
    inside = list(getattr(optimizer, "_inner_optimizers", []))  # a MultiOptimizer's
    inner = getattr(optimizer, "inner_optimizer", None)
    inside += [] if inner is None else [inner]
    return [optimizer, *(x for o in inside for x in flat_optimizers(o))]


def index_of(optimizer: Any, variable: Any) -> int:
    """Where a weight stands among those that the optimizer was built with."""
    index: int = optimizer._get_variable_index(variable)
    return index


def optimizer_state(optimizer: Any, name: str, variable: Any = None) -> Any:
    """An optimizer's own variable, such as Adam's velocity of one weight."""
    state = getattr(optimizer, name, None)
    if state is None:
        raise NotImplementedError(
            f"keras_penalties does not know the state of {type(optimizer).__name__} in "
            f"Keras {keras.__version__}: it has no `{name}`."
        )
    return state if variable is None else state[index_of(optimizer, variable)]


def portable_optimizer(config: dict[str, Any]) -> dict[str, Any]:
    """The config of an optimizer, loadable on every backend.

    On torch, Keras writes its private torch class, which other backends can't train.
    """
    if config["module"].startswith("keras.src.backend.torch"):
        return {**config, "module": "keras.optimizers", "registered_name": None}
    return config


def graph(model: Any) -> tuple[list[Any], list[Any], list[Any]] | None:
    """A model's inputs, its calls in order, and its outputs.

    None for what has a `call` of its own, is not built, or can't be made again from
    inputs and outputs.
    """
    sequential = type(model) is keras.Sequential
    function: Any = getattr(model, "_functional", None) if sequential else model
    plain = isinstance(function, _Functional) and (
        type(function).call is _Functional.call
        and _functional_like_constructor(type(function))
    )
    if not plain:
        return None
    depths = sorted(function._nodes_by_depth, reverse=True)
    known = {id(t) for t in function.inputs}
    nodes = []
    for node in (n for depth in depths for n in function._nodes_by_depth[depth]):
        if node.is_input or not all(id(t) in known for t in node.input_tensors):
            continue
        known.update(id(t) for t in node.outputs)
        nodes.append(node)
    return list(function.inputs), nodes, list(function.outputs)
