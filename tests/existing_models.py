"""Models as people have them, with rules, and by hand the weights that each rule means.

Each case has the plain model, a batch, the rules, and pairs of a weight and the sum of
the strengths of the squares that act on it: nothing here asks the package where a
weight is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

L2 = "l2(0.1)"


@dataclass
class Case:
    """A model, a batch, and what is to be penalised."""

    model: Any
    x: Any
    y: Any
    rules: Any
    squares: list[tuple[Any, float]]
    """The penalised weights that are trained, and their strengths."""
    loss: Any = "mse"
    frozen: list[Any] = field(default_factory=list)
    """Weights that a rule fits and that can't move."""
    loss_weight: float | None = None
    """Of the data loss: 0 where its gradient would hide that of the penalties."""


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def sequential() -> Case:
    first, last = layers.Dense(4, "tanh", name="first"), layers.Dense(1, name="last")
    model = keras.Sequential([keras.Input((3,)), first, last], name="plain")
    rules = {layers.Dense: L2, "last": {"bias": "l2(0.3)"}}
    squares = [(first.kernel, 0.1), (last.kernel, 0.1), (last.bias, 0.3)]
    return Case(model, numbers(6, 3), numbers(6, 1), rules, squares)


def _nested(outputs: str) -> Case:
    """Two inputs, a model in a model in the model, two outputs."""
    deep = layers.Dense(4, name="dense")
    a = keras.Input((3,))
    inner = keras.Model(a, deep(a), name="inner")
    b = keras.Input((3,))
    block = keras.Model(b, layers.Activation("tanh")(inner(b)), name="block")
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    own = layers.Dense(4, name="dense")
    joined = layers.Concatenate(name="joined")([block(left), own(right)])
    one, two = layers.Dense(1, name="one"), layers.Dense(2, name="two")
    given = {"u": one(joined), "v": two(joined)}
    y = {"u": numbers(6, 1), "v": numbers(6, 2)}
    if outputs == "list":
        given, y = list(given.values()), list(y.values())
    model = keras.Model([left, right], given)
    loss = {"u": "mse", "v": "mae"} if outputs == "dict" else {"one": "mse"}
    if outputs == "list":
        loss["two"] = "mae"
    rules = {"inner/dense/kernel": "l2(0.2)", "(one|two)/.*": L2}
    squares = [(deep.kernel, 0.2)]
    squares += [(w, 0.1) for layer in (one, two) for w in (layer.kernel, layer.bias)]
    return Case(model, [numbers(6, 3), numbers(6, 2)], y, rules, squares, loss)


def nested_dict() -> Case:
    return _nested("dict")


def nested_list() -> Case:
    return _nested("list")


def shared() -> Case:
    """One layer called three times."""
    dense, head = layers.Dense(3, "tanh", name="shared"), layers.Dense(1, name="head")
    x = keras.Input((3,))
    model = keras.Model(x, head(dense(dense(dense(x)))))
    squares = [(dense.kernel, 0.1), (head.kernel, 0.1)]
    return Case(model, numbers(6, 3), numbers(6, 1), {".*kernel": L2}, squares)


def attention() -> Case:
    x = keras.Input((5, 4))
    attend = layers.MultiHeadAttention(2, 3, name="attend")
    norm = layers.LayerNormalization(name="norm")
    h = norm(layers.Add()([x, attend(x, x)]))
    head = layers.Dense(1, name="head")
    model = keras.Model(x, head(layers.GlobalAveragePooling1D()(h)))
    parts = ("query", "key", "value", "output")
    kernels = [getattr(attend, f"{part}_dense").kernel for part in parts]
    rules = {layers.MultiHeadAttention: L2, "norm/gamma": "l2(0.2)"}
    squares = [*((k, 0.1) for k in kernels), (norm.gamma, 0.2)]
    return Case(model, numbers(6, 5, 4), numbers(6, 1), rules, squares)


def convolutions() -> Case:
    """With batch normalization, whose moving statistics no rule may touch."""
    x = keras.Input((6, 6, 2))
    conv = layers.Conv2D(3, 3, name="conv")
    deep = layers.DepthwiseConv2D(3, name="deep")
    norm = layers.BatchNormalization(name="norm")
    head = layers.Dense(1, name="head")
    h = layers.GlobalAveragePooling2D()(deep(norm(conv(x))))
    model = keras.Model(x, head(h))
    rules = {layers.Conv2D: L2, "deep/kernel": "l2(0.2)", "norm/.*": "l2(0.3)"}
    squares = [(conv.kernel, 0.1), (deep.kernel, 0.2)]
    squares += [(norm.gamma, 0.3), (norm.beta, 0.3)]
    return Case(model, numbers(6, 6, 6, 2), numbers(6, 1), rules, squares)


def recurrent() -> Case:
    """An embedding that masks, and an LSTM in both directions."""
    words = layers.Embedding(7, 4, mask_zero=True, name="words")
    lstm = layers.Bidirectional(layers.LSTM(3), name="both")
    head = layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((5,), dtype="int32"), words, lstm, head])
    cells = [lstm.forward_layer.cell, lstm.backward_layer.cell]
    rules = {layers.Embedding: L2, layers.LSTM: "l2(0.2)"}
    squares = [(words.embeddings, 0.1)]
    squares += [(w, 0.2) for c in cells for w in (c.kernel, c.recurrent_kernel)]
    x = np.random.default_rng(0).integers(0, 7, (6, 5))
    return Case(model, x, numbers(6, 1), rules, squares)


def lora() -> Case:
    dense, head = layers.Dense(4, "tanh", name="dense"), layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((3,)), dense, head])
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(numbers(2, 4))
    rules = {".*kernel": L2, "lora_kernel_.*": "l2(0.2)"}
    squares = [(dense.lora_kernel_a, 0.2), (dense.lora_kernel_b, 0.2)]
    squares += [(head.kernel, 0.1)]
    case = Case(model, numbers(6, 3), numbers(6, 1), rules, squares)
    case.frozen = [dense._kernel]
    return case


def frozen() -> Case:
    case = sequential()
    case.model.layers[0].trainable = False
    case.frozen, case.squares = [case.model.layers[0].kernel], case.squares[1:]
    return case


def quantized() -> Case:
    """The kernels are int8 and never trained: a rule finds the biases and the norm."""
    dense = layers.Dense(4, "tanh", name="dense")
    norm = layers.BatchNormalization(name="norm")
    head = layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input((3,)), dense, norm, head])
    model.quantize("int8")
    squares = [(dense.bias, 0.1), (norm.gamma, 0.1), (norm.beta, 0.1)]
    squares += [(head.bias, 0.1)]
    return Case(model, numbers(6, 3), numbers(6, 1), {".*": L2}, squares)


def mixed() -> Case:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        case = sequential()
    finally:
        keras.config.set_dtype_policy("float32")
    return case


def user_class() -> Case:
    """A class with methods of its own, made from inputs and outputs."""
    dense = layers.Dense(1, name="dense")
    x = keras.Input((3,))
    model = Doubling(inputs=x, outputs=dense(x))
    squares = [(dense.kernel, 0.1)]
    return Case(model, numbers(6, 3), numbers(6, 1), {"kernel": L2}, squares)


@keras.saving.register_keras_serializable("existing_models")
class Doubling(keras.Model):
    """A functional model whose data loss counts twice."""

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True) -> Any:
        y = keras.ops.convert_to_tensor(y)
        return 2 * keras.ops.mean((y - y_pred) ** 2) + sum(self.losses)


FAST = [
    sequential,
    nested_dict,
    nested_list,
    shared,
    attention,
    convolutions,
    recurrent,
    lora,
    frozen,
    quantized,
    mixed,
    user_class,
]


def _application(name: str, kernels: int, **kwargs: Any) -> Case:
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=3, **kwargs
    )
    classes = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
    found = [x.kernel for x in model.layers if isinstance(x, classes)]
    assert len(found) == kernels
    squares = [(kernel, 1e-3) for kernel in found]
    rules = {"kernel": "l2(1e-3)"}
    y = np.eye(3, dtype="float32")[[0, 2]]
    x = numbers(2, 32, 32, 3)
    # Untrained nets of such depth have gradients of 1e5 and more, and random layers.
    crossentropy = "categorical_crossentropy"
    return Case(model, x, y, rules, squares, crossentropy, loss_weight=0.0)


def mobilenet_v2() -> Case:
    return _application("MobileNetV2", 53)


def resnet50() -> Case:
    return _application("ResNet50", 54)


def efficientnet_b0() -> Case:
    return _application("EfficientNetB0", 82)


SLOW = [mobilenet_v2, resnet50, efficientnet_b0]
