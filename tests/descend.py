"""Many training steps in one compiled call: `fit` without its overhead."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


def descend(model: Any, x: Any, y: Any, steps: int, batch: int | None = None) -> None:
    """Take that many steps of `model.optimizer` on `model.loss`.

    All data at once, or in batches of which every epoch draws new ones.
    """
    model.optimizer.build(model.trainable_variables)
    x, y = (ops.convert_to_tensor(a, keras.config.floatx()) for a in (x, y))
    rows = np.arange(len(x))[None] if batch is None else _batches(len(x), steps, batch)
    _BACKENDS[keras.backend.backend()](model, x, y, steps, rows.astype("int32"))


def _batches(samples: int, steps: int, batch: int) -> np.ndarray:
    rng, epochs = np.random.default_rng(0), -(-steps * batch // samples)
    order = np.concatenate([rng.permutation(samples) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)


def _jax(model: Any, x: Any, y: Any, steps: int, rows: Any) -> None:
    import jax

    optimizer, rows = model.optimizer, jax.numpy.asarray(rows)
    rest = [v.value for v in model.non_trainable_variables]

    def loss(weights, now):
        return model.loss(y[now], model.stateless_call(weights, rest, x[now])[0])

    def step(k, state):
        slopes = jax.grad(loss)(state[0], rows[k % len(rows)])
        return optimizer.stateless_apply(state[1], slopes, state[0])

    variables = [model.trainable_variables, optimizer.variables]
    state = tuple([v.value for v in group] for group in variables)
    state = jax.jit(lambda s: jax.lax.fori_loop(0, steps, step, s))(state)
    for group, values in zip(variables, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)


def _tensorflow(model: Any, x: Any, y: Any, steps: int, rows: Any) -> None:
    import tensorflow as tf

    weights, rows = [v.value for v in model.trainable_variables], tf.constant(rows)

    @tf.function
    def run():
        for k in tf.range(steps):
            now = rows[k % len(rows)]
            with tf.GradientTape() as tape:
                loss = model.loss(tf.gather(y, now), model(tf.gather(x, now)))
            model.optimizer.apply(tape.gradient(loss, weights))

    run()


def _torch(model: Any, x: Any, y: Any, steps: int, rows: Any) -> None:
    import torch

    weights = [v.value for v in model.trainable_variables]
    rows, threads = torch.as_tensor(rows), torch.get_num_threads()
    torch.set_num_threads(1)  # arrays as small as these are slowed down by more
    for k in range(steps):
        now = rows[k % len(rows)]
        slopes = torch.autograd.grad(model.loss(y[now], model(x[now])), weights)
        model.optimizer.apply(list(slopes))
    torch.set_num_threads(threads)


_BACKENDS = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}
