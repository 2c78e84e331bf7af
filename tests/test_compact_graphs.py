"""compact on random graphs with planted dead units: same outputs, predicted sizes."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from conftest import BACKEND
from keras import layers, ops

import keras_penalties as kp

# Every graph is compiled anew, which takes JAX seconds.
EXAMPLES = 4 if BACKEND == "jax" else 20
IMAGE, OUTPUTS = (6, 6, 2), 3
STEPS = [
    "conv",
    "shared",
    "residual",
    "plus",
    "concatenate",
    "depthwise",
    "separable",
    "norm",
    "pool",
    "activation",
    "gate",
    "nested",
    "penalty",
    "layer_norm",
]


class Graph:
    """A random model that grows step by step; `dead` are the channels to plant."""

    def __init__(self, draw, planted):
        self.draw, self.planted = draw, planted
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.inputs = self.x = keras.Input(IMAGE)
        self.dead = np.zeros(IMAGE[-1], dtype=bool)
        self.made = []  # each layer, which channels are planted dead, which go
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=6)):
            getattr(self, step)()
        self.head()
        self.model = keras.Model(self.inputs, self.x)
        self.fill()

    def choose(self, count):
        dead = self.rng.random(count) < 0.4
        dead[self.rng.integers(count)] = False
        return dead

    def add(self, layer, dead, gone=None):
        self.made.append((layer, dead, dead if gone is None else gone))
        return layer

    def convolution(self, dead, **kwargs):
        kwargs = {"padding": "same", **kwargs}
        size = self.draw(st.sampled_from([1, 3]))
        bias = self.draw(st.booleans())
        layer = layers.Conv2D(len(dead), size, use_bias=bias, **kwargs)
        return self.add(layer, dead)

    def conv(self):
        self.dead = self.choose(self.draw(st.sampled_from([3, 5])))
        activation = self.draw(st.sampled_from(["relu", "tanh", None, "gelu"]))
        self.x = self.convolution(self.dead, activation=activation)(self.x)

    def shared(self):
        """One layer at two places: the input must have its channels cut as it does."""
        self.conv()
        twice = self.convolution(self.dead)
        self.x = twice(twice(self.x))

    def residual(self):
        self.conv()
        self.x = layers.Add()([self.x, self.convolution(self.dead)(self.x)])

    def plus(self):
        self.conv()
        self.x = ops.relu(self.x + self.convolution(self.dead)(self.x))

    def concatenate(self):
        dead = self.choose(3)
        other = self.convolution(dead)(self.x)
        self.x = layers.Concatenate()([self.x, other])
        self.dead = np.concatenate([self.dead, dead])

    def depthwise(self):
        layer = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
        self.dead = np.repeat(self.dead, 2)
        self.x = self.add(layer, self.dead)(self.x)

    def separable(self):
        self.dead = self.choose(4)
        layer = layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)
        self.x = self.add(layer, self.dead)(self.x)

    def norm(self):
        self.x = self.add(layers.BatchNormalization(), self.dead)(self.x)

    def pool(self):
        kinds = [layers.MaxPooling2D, layers.AveragePooling2D]
        kind = self.draw(st.sampled_from(kinds))
        self.x = layers.Dropout(0.5)(kind(3, 1, padding="same")(self.x))

    def activation(self):
        self.x = layers.Activation(self.draw(st.sampled_from(["relu", "silu"])))(self.x)

    def gate(self):
        """Squeeze and excite: zero times a gate that varies is zero."""
        mean = layers.GlobalAveragePooling2D(keepdims=True)(self.x)
        alive = np.zeros_like(self.dead)
        layer = layers.Conv2D(len(alive), 1, activation="sigmoid")
        gate = self.add(layer, alive, gone=self.dead)(mean)
        self.x = layers.Multiply()([self.x, gate])

    def nested(self):
        dead = self.choose(4)
        layer = self.convolution(dead, activation="relu")
        inside = [keras.Input(self.x.shape[1:]), layer, layers.BatchNormalization()]
        self.add(inside[-1], dead)
        self.x = keras.Sequential(inside)(self.x)
        self.dead = dead

    def penalty(self):
        self.x = kp.layers.ActivityPenalty("l1(0.1)")(self.x)

    def layer_norm(self):
        """What comes before stays whole; what comes after is cut again."""
        if self.planted:
            return
        self.x = layers.LayerNormalization()(self.x)

    def head(self):
        flat = self.draw(st.sampled_from([layers.Flatten, layers.GlobalMaxPooling2D]))
        self.x = flat()(self.x)
        units = self.choose(4)
        activation = self.draw(st.sampled_from(["sigmoid", "relu", None]))
        layer = layers.Dense(4, activation)
        if self.draw(st.booleans()):
            layer = kp.layers.Penalized(layer, weights={"kernel": "l2(0.1)"})
        self.x = self.add(layer, units)(self.x)
        self.x = layers.Dense(OUTPUTS)(self.x)

    def fill(self):
        """Random weights; the planted channels get zeros, all their constants zero."""
        for variable in self.model.weights:
            values = self.rng.normal(size=variable.shape) * 0.4
            variable.assign(
                abs(values) + 0.5 if "variance" in variable.path else values
            )
        for layer, dead, _ in self.made:
            owner = getattr(layer, "layer", layer)
            hidden = not isinstance(owner, layers.Dense)
            for weight in owner.weights:
                values = np.array(ops.convert_to_numpy(weight))
                if "moving" in weight.path or "depthwise_kernel" in weight.path:
                    continue
                if "bias" in weight.path and not (hidden and self.planted):
                    continue  # constants other than zero
                if isinstance(owner, layers.DepthwiseConv2D) and values.ndim == 4:
                    values = values.reshape(*values.shape[:2], -1)
                values[..., dead] = 0
                weight.assign(values.reshape(weight.shape))


# A failing graph is small: to shrink it further takes longer than to read it.
few = hypothesis.settings(
    max_examples=EXAMPLES, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


def outputs(model, images):
    return ops.convert_to_numpy(model(images))


def images():
    return np.random.default_rng(1).normal(size=(4, *IMAGE)).astype("float32")


@pytest.mark.slow_on_tensorflow
@few
@hypothesis.given(st.data())
def test_consistent_zeros_go_wholly(data):
    graph = Graph(data.draw, planted=True)
    small = kp.compact(graph.model)
    np.testing.assert_allclose(
        outputs(small, images()), outputs(graph.model, images()), rtol=1e-5, atol=1e-5
    )
    sizes = {
        row.layer: (row.before, row.after)
        for row in kp.compaction.Plan(graph.model).rows
    }
    for layer, _, gone in graph.made:
        assert sizes[layer.name] == (len(gone), np.sum(~gone)), layer.name
    again = kp.compaction.Plan(small)
    assert all(row.before == row.after for row in again.rows)


@pytest.mark.slow_on_tensorflow
@few
@hypothesis.given(st.data())
def test_any_zeros_leave_the_outputs(data):
    graph = Graph(data.draw, planted=False)
    for variable in graph.model.weights:
        values = np.array(ops.convert_to_numpy(variable))
        if values.ndim > 1 and data.draw(st.booleans()):
            axis = data.draw(st.sampled_from([-1, -2]))
            np.moveaxis(values, axis, 0)[graph.choose(values.shape[axis])] = 0
            variable.assign(values)
    small = kp.compaction.Plan(graph.model).apply()
    np.testing.assert_allclose(
        outputs(small, images()), outputs(graph.model, images()), rtol=1e-5, atol=1e-5
    )
    assert small.count_params() <= graph.model.count_params()
    assert [w.path for w in small.weights] == [w.path for w in graph.model.weights]
