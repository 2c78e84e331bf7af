"""Laws of the layers, on an input of shape (4, 3) with entries in (0, 1)."""

from __future__ import annotations

import copy
import json
import tempfile
from typing import Any

import keras
import numpy as np
from keras import ops

from laws.book import LAYER_LAWS, array, equal, law

X = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)).astype("float32")


def renewed(layer: Any, policy: str = "float32") -> Any:
    """A layer from the config, by way of JSON: examples are shared by the laws."""
    text = json.dumps(layer.get_config()).replace('"float32"', f'"{policy}"')
    return type(layer).from_config(json.loads(text))


def called(layer: Any, x: Any) -> Any:
    """What the layer gives for `x`, and for what else its `example_inputs` name."""
    example_inputs = getattr(layer, "example_inputs", None)
    return layer(**example_inputs(x)) if example_inputs else layer(x)


def total(layer: Any) -> float:
    return float(sum(array(loss) for loss in layer.losses))


@law(book=LAYER_LAWS)
def a_layer_reloads_from_its_config(layer: Any) -> None:
    first = copy.deepcopy(layer)
    expected, loss = array(called(first, X)), total(first)
    again = renewed(first)
    again.build(X.shape)
    assert json.dumps(again.get_config()) == json.dumps(first.get_config())
    for source, target in zip(first.weights, again.weights, strict=True):
        target.assign(source)
    equal(array(called(again, X)), expected)
    equal(total(again), loss)


@law(book=LAYER_LAWS)
def a_layer_knows_its_output_shape(layer: Any) -> None:
    layer = renewed(layer)
    symbolic = called(layer, keras.Input(X.shape[1:]))
    assert symbolic.shape == (None, *called(layer, X).shape[1:])


@law(book=LAYER_LAWS)
def a_layer_works_in_mixed_precision(layer: Any) -> None:
    wide = renewed(layer)
    expected, loss = array(called(wide, X)), total(wide)
    half = renewed(layer, "mixed_float16")
    half.build(X.shape)
    for source, target in zip(wide.weights, half.weights, strict=True):
        if "sums" not in target.path and "running_mean" not in target.path:
            target.assign(source)
    result = called(half, ops.cast(X, "float16"))
    assert keras.backend.standardize_dtype(result.dtype) == "float16"
    equal(array(result), expected, 2e-3)
    equal(total(half), loss, 2e-3)
    for added in half.losses:
        assert keras.backend.standardize_dtype(added.dtype) == keras.config.floatx()


@law(book=LAYER_LAWS)
def a_layer_trains_and_is_saved_in_a_model(layer: Any) -> None:
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, called(renewed(layer), inputs))
    model.compile("sgd", loss=None if model.losses else "mse", run_eagerly=True)
    targets = np.zeros_like(model.predict(X, verbose=0))
    model.fit(X, targets, epochs=2, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        again = keras.saving.load_model(f"{folder}/model.keras")
    equal(again.predict(X, verbose=0), model.predict(X, verbose=0), 1e-6)
    for old, new in zip(model.weights, again.weights, strict=True):
        equal(array(new), array(old), 0.0)
    expected = model.evaluate(X, targets, verbose=0, return_dict=True)
    logs = again.evaluate(X, targets, verbose=0, return_dict=True)
    assert list(logs) == list(expected)
    for name in logs:
        equal(logs[name], expected[name], 1e-6)
