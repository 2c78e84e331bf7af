"""Training steps as `fit` takes them, on data that is already loaded."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()


def steps_of(model: Any, x: Any, y: Any, block: int) -> Callable[[], None]:
    """A block of training steps of a compiled model, which waits for the last step.

    Each step calls the same function that `fit` calls.
    """
    model.train_on_batch(x, y)  # builds, traces and compiles
    model.make_train_function()
    x, y = keras.tree.map_structure(ops.convert_to_tensor, (x, y))
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[BACKEND](
        model.train_function, model, x, y, block
    )


def _tensorflow(step: Any, model: Any, x: Any, y: Any, block: int) -> Any:
    import tensorflow as tf

    batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())

    def run() -> None:
        for _ in range(block):
            logs = step(batches)
        float(logs["loss"])

    return run


def _jax(step: Any, model: Any, x: Any, y: Any, block: int) -> Any:
    import jax

    kinds = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    # Copies: a step may reuse the memory of the state that it gets.
    state = tuple([jax.numpy.array(v.value) for v in kind] for kind in kinds)
    batches = itertools.repeat((x, y))

    def run() -> None:
        nonlocal state
        for _ in range(block):
            _, state = step(state, batches)
        jax.block_until_ready(state)

    return run


def _torch(step: Any, model: Any, x: Any, y: Any, block: int) -> Any:
    def run() -> None:
        for _ in range(block):
            step([(x, y)])

    return run


def random_batch(batch: int, features: int, classes: int) -> tuple[Any, Any]:
    """Inputs and labels from a fixed seed."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, features)).astype("float32")
    return x, rng.integers(classes, size=batch).astype("int32")


def classifier(layers: list[Any], optimizer: Any = "adam") -> Any:
    """A compiled Sequential with integer labels."""
    return compiled(keras.Sequential(layers), optimizer)


def compiled(model: Any, optimizer: Any = "adam") -> Any:
    """The model with a loss of integer labels."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def read_once(model: Any) -> Callable[[], object]:
    """Reads every kernel once, as fast as the backend can: a compiled `Σ |w|`."""
    kernels = [w.value for w in model.trainable_weights if w.name == "kernel"]

    def total(kernels: list[Any]) -> Any:
        return sum(ops.sum(ops.absolute(w)) for w in kernels)

    if BACKEND == "jax":
        import jax

        compiled = jax.jit(total)
        return lambda: compiled(kernels).block_until_ready()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        fused = tf.function(total, jit_compile=True)
        return lambda: float(fused(kernels))
    return lambda: float(total(kernels))


def fresh(*arguments: str) -> list[float]:
    """The numbers that a new Python prints; it keeps compiled modules, as is usual."""
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    printed = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    return [float(word) for word in printed.split()]
