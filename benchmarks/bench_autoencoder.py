"""The tutorial's autoencoder on digits, from the start to the last step.

1,000 full-batch steps, building and compilation included: ours by plain `fit`, the
tutorial's eager loop, and the same objective in plain PyTorch and in JAX with optax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from harness import Claim, interleaved, measured
from sklearn.datasets import load_digits
from steps import BACKEND

import keras_penalties as kp
from keras_penalties.demo import STEPS, FullBatches

ALPHA, BETA, RHO, RATE = 0.1, 0.001, 0.1, 0.01
BAR = {"tensorflow": 1 / 4, "jax": 1 / 7}.get(BACKEND)


@dataclass(frozen=True)
class Maths:
    """The few functions of one framework that the objective needs."""

    sigmoid: Callable[[Any], Any]
    log: Callable[[Any], Any]
    total: Callable[[Any], Any]
    mean: Callable[[Any], Any]
    join: Callable[[list[Any]], Any]

    def objective(self, w1: Any, w2: Any, x: Any, one: Any) -> Any:
        """The tutorial's: squared error, weight decay, KL sparsity; sums over all."""
        hidden = self.sigmoid(self.join([x, one]) @ w1)
        output = self.sigmoid(self.join([hidden, one]) @ w2)
        q = self.mean(hidden)
        kl = RHO * self.log(RHO / q) + (1 - RHO) * self.log((1 - RHO) / (1 - q))
        decay = self.total(w1 * w1) + self.total(w2 * w2)
        error = self.total((x - output) ** 2)
        return 0.5 * error + 0.5 * ALPHA * decay + BETA * self.total(kl)


def tensorflow_maths():
    import tensorflow as tf

    mean, join = partial(tf.reduce_mean, axis=0), partial(tf.concat, axis=1)
    return Maths(tf.sigmoid, tf.math.log, tf.reduce_sum, mean, join)


def jax_maths():
    import jax
    import jax.numpy as jnp

    mean, join = partial(jnp.mean, axis=0), partial(jnp.concatenate, axis=1)
    return Maths(jax.nn.sigmoid, jnp.log, jnp.sum, mean, join)


def torch_maths():
    import torch

    mean, join = partial(torch.mean, dim=0), partial(torch.cat, dim=1)
    return Maths(torch.sigmoid, torch.log, torch.sum, mean, join)


def fit(x, start, steps):
    """Ours, as the docs recommend."""
    model = kp.models.SparseAutoencoder.from_preset(
        "tutorial_sparse", hidden_units=start[0].shape[1]
    )
    model.build((None, x.shape[1]))
    kernels = model.encoder.layer.kernel, model.decoder.layer.kernel
    for kernel, value in zip(kernels, start, strict=True):
        kernel.assign(value)
    epoch = min(STEPS, steps)
    model.compile(
        keras.optimizers.Adam(RATE),
        kp.losses.HalfSumSquaredError(reduction="sum"),
        steps_per_execution=1 if BACKEND == "torch" else epoch,
    )
    model.fit(FullBatches(x, epoch), epochs=steps // epoch, verbose=0)
    return [keras.ops.convert_to_numpy(k) for k in kernels]


def tutorial(x, start, steps, curve=True):
    """The tutorial's eager loop, with one Adam for all steps and a loss without copies.

    Its get_loss gives the curve that it plots, and get_grad calls get_loss again.
    """
    weights = [keras.Variable(w) for w in start]
    optimizer = keras.optimizers.Adam(RATE)
    optimizer.build(weights)
    x = keras.ops.convert_to_tensor(x)
    one = keras.ops.ones_like(x[:, :1])
    slopes = {"tensorflow": tape, "jax": eager_jax, "torch": autograd}[BACKEND]
    objective = {
        "tensorflow": tensorflow_maths,
        "jax": jax_maths,
        "torch": torch_maths,
    }[BACKEND]().objective
    losses = []
    for _ in range(steps):
        values = [w.value for w in weights]
        if curve:
            losses.append(objective(*values, x, one))
        optimizer.apply(slopes(values, x, one), weights)
    return [keras.ops.convert_to_numpy(w) for w in weights]


def tape(weights, x, one):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tensorflow_maths().objective(*weights, x, one)
    return tape.gradient(loss, weights)


def eager_jax(weights, x, one):
    import jax

    objective = jax.value_and_grad(jax_maths().objective, argnums=(0, 1))
    return objective(*weights, x, one)[1]


def autograd(weights, x, one):
    import torch

    loss = torch_maths().objective(*weights, x, one)
    return torch.autograd.grad(loss, weights)


def plain_torch(x, start, steps):
    """The usual code in PyTorch."""
    import torch

    weights = [torch.nn.Parameter(torch.tensor(w)) for w in start]
    optimizer = torch.optim.Adam(weights, lr=RATE, eps=1e-7)
    x, maths = torch.tensor(x), torch_maths()
    one = torch.ones_like(x[:, :1])
    for _ in range(steps):
        optimizer.zero_grad()
        maths.objective(*weights, x, one).backward()
        optimizer.step()
    return [w.detach().numpy() for w in weights]


def optax_jit(x, start, steps):
    """The usual code in JAX, with optax and one jitted step."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer, maths = optax.adam(RATE, eps=1e-7), jax_maths()
    x, weights = jnp.asarray(x), [jnp.array(w) for w in start]
    one = jnp.ones_like(x[:, :1])
    state = optimizer.init(weights)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, state, x, one):
        _, slopes = jax.value_and_grad(lambda w: maths.objective(*w, x, one))(weights)
        updates, state = optimizer.update(slopes, state)
        return optax.apply_updates(weights, updates), state

    for _ in range(steps):
        weights, state = step(weights, state, x, one)
    return [np.asarray(w) for w in weights]


OURS, LOOP = "SparseAutoencoder by fit", "the tutorial's loop, mended"
BARE = "that loop without its loss curve"
bare_loop = partial(tutorial, curve=False)
CONTENDERS = {
    OURS: fit,
    LOOP: tutorial,
    BARE: bare_loop,
    "plain PyTorch": plain_torch,
    "JAX and optax, jitted": optax_jit,
}
OWN = {"torch": plain_torch, "jax": optax_jit}
"""The rival that is written with the backend itself."""


@pytest.fixture
def work(options):
    """The data, and the weights that all start from."""
    x = (load_digits().data[: options.samples] / 16.0).astype("float32")
    rng = np.random.default_rng(0)
    shapes = (x.shape[1] + 1, options.hidden), (options.hidden + 1, x.shape[1])
    start = [rng.uniform(-0.15, 0.15, s).astype("float32") for s in shapes]
    runs = (fit, tutorial, bare_loop, OWN.get(BACKEND))
    return x, start, {n: run for n, run in CONTENDERS.items() if run in runs}


def test_the_work_is_the_same(work):
    x, start, contenders = work
    maths = Maths(
        lambda z: 1.0 / (1.0 + np.exp(-z)),
        np.log,
        np.sum,
        partial(np.mean, axis=0),
        partial(np.concatenate, axis=1),
    )
    one = np.ones_like(x[:, :1])
    first = maths.objective(*start, x, one)
    ends = [maths.objective(*run(x, start, 5), x, one) for run in contenders.values()]
    assert ends[0] < 0.9 * first
    # Not the weights: Adam follows the random sign of a gradient of rounding error.
    assert ends[1:] == pytest.approx([ends[0]] * len(ends[1:]), rel=1e-5)


def test_a_thousand_steps(work, options, report):
    """The eager loops compile nothing: they take fewer steps, their time is scaled."""
    x, start, contenders = work
    shorter = dict.fromkeys((LOOP, BARE), options.loop_steps)
    steps = dict.fromkeys(contenders, options.steps) | shorter
    turns = {n: partial(run, x, start, steps[n]) for n, run in contenders.items()}
    # No warm-up: the compilation in a first run counts. The imports do not.
    samples = interleaved(turns, options.runs, warmups=0)
    whole = options.steps / options.loop_steps
    for name in shorter:
        samples[name] = [whole * s for s in samples[name]]
    claims = [Claim(OURS, n, BAR if n == LOOP else None) for n in contenders]
    report(measured("The tutorial's autoencoder, 1,000 steps", samples, claims[1:]))
