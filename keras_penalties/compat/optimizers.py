"""What sets zeros belongs right after the optimizer's own update of a weight.

- Private: the update on torch (`_backend_update_step`; `update_step` elsewhere is
  public), the order of the weights (`_get_variable_index`), the optimizers inside a
  `MultiOptimizer`, which weights weight decay leaves out (`_use_weight_decay`), and the
  module of the class that Keras writes on torch. The only public method is `apply`,
  which also computes the moving average of the weights.
- Needless when `test_an_optimizers_parts_are_private` or
  `test_an_optimizer_saved_on_torch_names_its_private_class` of `tests/test_needless.py`
  fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_penalties.compat.private import part_of

_FEATURE = "`Proximal`"


def around_update(
    optimizer: Any,
    around: Callable[[Callable[[], None], Sequence[Any], Sequence[Any], Any], None],
) -> None:
    """Let `around(update, gradients, variables, rate)` call the optimizer's updates.

    There is no other place between the update and the moving average. Keras' update on
    torch is one for all weights; elsewhere it is one for each, and on TensorFlow it
    runs where a distributed weight may be assigned.

    An optimizer inside the one that `around` is a method of may have done the same.
    """
    name = "update_step"
    if keras.backend.backend() == "torch":
        name = "_backend_update_step"
    original = part_of(optimizer, name, _FEATURE)
    own = flat_optimizers(getattr(around, "__self__", None))
    if isinstance(original, functools.partial) and not any(
        original.args[1].__self__ is one for one in own
    ):
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
    index: int = part_of(optimizer, "_get_variable_index", _FEATURE)(variable)
    return index


def decayed(optimizer: Any, variables: Sequence[Any]) -> list[Any]:
    """The weights on which an optimizer's own weight decay acts."""
    uses = part_of(optimizer, "_use_weight_decay", "`summary` and `objective`")
    return [v for v in variables if optimizer.weight_decay and uses(v)]


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
