"""What only Keras' own training loop knows.

- Private: whether the present scope on JAX collects losses; `jax_state_sync`, which has
  no underscore and no documentation; and the arguments of `compile` as objects, which
  Keras gives publicly as a config only, where it can.
- Replaced: `Model.predict_step` and `Model.export`, public methods. Both call a model
  as an evaluation does, and a layer has no other way to know that nobody reads the
  losses. Without the replacement all would be right, but penalties would be computed
  for nothing and would be written into exported models. So is `Model.train_step`: a
  model whose `call` takes no `training` lets no layer know that it is being trained.
- Needless when `test_predict_computes_losses_that_nobody_reads` or
  `test_weights_are_away_within_an_epoch_on_jax` of `tests/test_needless.py` fails.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_penalties.compat.ledger import get_stateless_scope
from keras_penalties.compat.private import part_of

_Flag: TypeAlias = contextvars.ContextVar[bool]
_unread: _Flag = contextvars.ContextVar("unread", default=False)
_training: _Flag = contextvars.ContextVar("training", default=False)


def sync_state(model: Any) -> None:
    """Within an epoch on JAX: give the weights their present values.

    It also lets what is assigned to them now reach the next step.
    """
    sync = getattr(model, "jax_state_sync", None)
    if sync is not None:
        sync()


def loses_optimizer(model: Any) -> bool:
    """Whether Keras does not compile the model when it is loaded: all is public.

    Keras skips it for a class with a `compile` of its own, unless the class also has a
    `compile_from_config`.
    """
    kind, names = type(model), ("compile", "compile_from_config")
    own = [getattr(kind, n, None) is not getattr(keras.Model, n, None) for n in names]
    return own == [True, False]


def compile_arguments(model: Any) -> dict[str, Any]:
    """What a compiled model was compiled with, the very objects, its optimizer too."""
    given = part_of(model, "_compile_config", "Copying how a model is compiled")
    return {**given.config, "optimizer": model.optimizer}


def losses_wanted() -> bool:
    """Whether anybody will read the losses of this call."""
    scope = get_stateless_scope()
    return not _unread.get() and (scope is None or bool(scope.collect_losses))


def in_training(training: bool | None) -> bool:
    """Whether a layer that was called with this `training` is being trained."""
    return _training.get() if training is None else bool(training)


def _within(flag: _Flag, plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = flag.set(True)
        try:
            return plain(self, *args, **kwargs)
        finally:
            flag.reset(token)

    return method


def _note_what_a_model_does() -> None:
    for name, flag in (
        ("predict_step", _unread),
        ("export", _unread),
        ("train_step", _training),
    ):
        plain = getattr(keras.Model, name, None)
        if plain is not None:
            setattr(keras.Model, name, _within(flag, plain))


_note_what_a_model_does()
