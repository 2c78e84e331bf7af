"""Penalties on input gradients: our layers against code that is written by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from harness import Claim, interleaved, measured
from keras import ops
from keras.layers import Dense
from steps import BACKEND, random_batch, steps_of

import keras_penalties as kp

BAR = None if BACKEND == "torch" else 1.1


def with_gradients(term):
    """On torch: also where Keras only asks for shapes, which it does without them."""
    if BACKEND != "torch":
        return term
    import torch

    return torch.enable_grad()(term)


class ByHand(keras.layers.Layer):
    """Calls a layer, adds the first result of `term(layer, x)`, returns the second."""

    def __init__(self, layer, term):
        super().__init__()
        self.layer, self.term = layer, with_gradients(term)

    def call(self, x):
        loss, outputs = self.term(self.layer, x)
        self.add_loss(loss)
        return outputs


def pure(layer):
    """On JAX: the layer as a function of its input."""
    trained = [v.value for v in layer.trainable_variables]
    rest = [v.value for v in layer.non_trainable_variables]
    return lambda x: layer.stateless_call(trained, rest, x)[0]


def gradient_penalty(critic, x):
    """WGAN-GP's, at the batch itself: one forward pass and its gradient."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = critic(x)
        slope = tape.gradient(outputs, x)
    elif BACKEND == "jax":
        import jax

        outputs, back = jax.vjp(pure(critic), x)
        (slope,) = back(ops.ones_like(outputs))
    else:
        import torch

        x = x.detach().requires_grad_(True)
        outputs = critic(x)
        (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    length = ops.sqrt(ops.sum(ops.square(slope), axis=1))
    return 10.0 * ops.mean(ops.square(length - 1.0)), outputs


def contractive(encoder, x):
    """The squared Jacobian, by each framework's own function for Jacobians."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = encoder(x)
        jacobian = tape.batch_jacobian(outputs, x)
    elif BACKEND == "jax":
        import jax

        one = pure(encoder)
        outputs = one(x)
        jacobian = jax.vmap(jax.jacrev(lambda r: one(r[None])[0]))(x)
    else:
        import torch

        x = x.detach().requires_grad_(True)
        outputs = encoder(x)
        columns = outputs.sum(dim=0)
        jacobian = torch.stack(
            [torch.autograd.grad(c, x, create_graph=True)[0] for c in columns], dim=1
        )
    return 0.01 * ops.mean(ops.sum(ops.square(jacobian), axis=(1, 2))), outputs


def contractive_sigmoid(dense, x):
    """The same of one sigmoid layer, in closed form."""
    h = dense(x)
    squares = ops.sum(ops.square(dense.kernel), axis=0)
    return 0.01 * ops.mean(ops.sum(ops.square(h * (1.0 - h)) * squares, -1)), h


def critic(options):
    width = options.width // 4
    hidden = [Dense(width, "tanh"), Dense(width, "tanh")]
    return keras.Sequential([keras.Input((options.hidden,)), *hidden, Dense(1)])


CASES = {
    "GradientPenalty": (
        critic,
        lambda layer: kp.layers.GradientPenalty(layer, 10.0),
        gradient_penalty,
    ),
    "Contractive, 32 outputs": (
        lambda options: keras.Sequential([keras.Input((64,)), Dense(32, "tanh")]),
        lambda layer: kp.layers.Contractive(layer, 0.01),
        contractive,
    ),
    "Contractive, sigmoid layer": (
        lambda options: Dense(options.width, "sigmoid"),
        lambda layer: kp.layers.Contractive(layer, 0.01),
        contractive_sigmoid,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_input_gradient(options, report, name):
    layer_of, ours, term = CASES[name]
    features = 64 if "32" in name else options.hidden
    hosts = {name: ours, "by hand": lambda layer: ByHand(layer, term)}
    hosts["no penalty"] = lambda layer: layer
    models = {}
    for host, wrap in hosts.items():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((features,))
        layer = layer_of(options)
        layer.build((None, features))
        models[host] = keras.Model(inputs, wrap(layer)(inputs))
        models[host].compile("adam", "mse")
    x, _ = random_batch(options.batch, features, 2)
    y = np.zeros((options.batch, models[name].output_shape[-1]), "float32")
    losses = [
        models[n].evaluate(x, y, verbose=0, return_dict=True)["loss"] for n in hosts
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # the same work

    block = 5 * options.block  # these steps are short
    turns = {n: steps_of(m, x, y, block) for n, m in models.items()}
    samples = interleaved(turns, options.rounds)
    samples = {n: [s / block for s in t] for n, t in samples.items()}
    claims = [Claim(name, "by hand", BAR), Claim(name, "no penalty")]
    report(measured("Gradients by the input", samples, claims))
