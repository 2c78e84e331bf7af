"""Many full-batch training steps in one compiled call: `fit` without its overhead."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def descend(model: Any, x: Any, y: Any, steps: int) -> None:
    """Take that many steps of `model.optimizer` on `model.loss`, all data at once."""
    model.optimizer.build(model.trainable_variables)
    x, y = (ops.convert_to_tensor(a, keras.config.floatx()) for a in (x, y))
    _BACKENDS[keras.backend.backend()](model, x, y, steps)


def _jax(model: Any, x: Any, y: Any, steps: int) -> None:
    import jax

    optimizer, rest = model.optimizer, [v.value for v in model.non_trainable_variables]

    def loss(weights):
        return model.loss(y, model.stateless_call(weights, rest, x)[0])

    def step(_, state):
        return optimizer.stateless_apply(state[1], jax.grad(loss)(state[0]), state[0])

    variables = [*model.trainable_variables, *optimizer.variables]
    state = (
        [v.value for v in model.trainable_variables],
        [v.value for v in optimizer.variables],
    )
    state = jax.jit(lambda s: jax.lax.fori_loop(0, steps, step, s))(state)
    for variable, value in zip(variables, [*state[0], *state[1]], strict=True):
        variable.assign(value)


def _tensorflow(model: Any, x: Any, y: Any, steps: int) -> None:
    import tensorflow as tf

    weights = [v.value for v in model.trainable_variables]

    @tf.function
    def run():
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                loss = model.loss(y, model(x))
            model.optimizer.apply(tape.gradient(loss, weights))

    run()


def _torch(model: Any, x: Any, y: Any, steps: int) -> None:
    import torch

    weights = [v.value for v in model.trainable_variables]
    for _ in range(steps):
        slopes = torch.autograd.grad(model.loss(y, model(x)), weights)
        model.optimizer.apply(list(slopes))


_BACKENDS = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}
