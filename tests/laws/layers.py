"""Laws of the layers, on an input of shape (4, 3) with entries in (0, 1)."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import keras
import numpy as np
from keras import ops

import keras_penalties as kp
from keras_penalties.config import arguments
from laws.book import LAYER_LAWS, array, equal, law

X = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)).astype("float32")
ANY_BATCH = (None, *X.shape[1:])


def renewed(layer: Any, policy: str = "float32") -> Any:
    """A layer from the config by way of JSON, which draws the same random numbers.

    The weights of the wrapped layer and the random state are copied, as no config has
    them. The layer's own weights, such as the strengths, come from the config.
    """
    text = json.dumps(layer.get_config()).replace('"float32"', f'"{policy}"')
    again = type(layer).from_config(json.loads(text))
    for each in (layer, again):
        if not each.built:
            each.build(X.shape)
    for source, target in zip(drawn(layer), drawn(again), strict=True):
        target.assign(source)
    return again


def drawn(layer: Any) -> list[Any]:
    """The weights that start at random."""
    wrapped = getattr(layer, "layer", None)
    inside = {id(v) for v in wrapped.variables} if wrapped else set()
    return [v for v in layer.variables if id(v) in inside or "seed" in v.path]


def called(layer: Any, x: Any, **kwargs: Any) -> Any:
    """What the layer gives for `x`, and for what else its `example_inputs` name."""
    example_inputs = getattr(layer, "example_inputs", None)
    given = example_inputs(x) if example_inputs else {"inputs": x}
    main = given.pop(next(iter(given)))
    return layer(main, **given, **kwargs)


def total(layer: Any) -> float:
    return float(sum(array(loss) for loss in layer.losses))


def dtype_of(x: Any) -> str:
    return str(keras.backend.standardize_dtype(x.dtype))


def mask_of(x: Any) -> Any:
    """The mask that Keras hands on with a tensor."""
    mask = getattr(x, "_keras_mask", None)
    return None if mask is None else ops.convert_to_numpy(mask).tolist()


def hosts_terms(layer: Any) -> bool:
    return bool(getattr(layer, "terms", ()))


def model_of(layer: Any, **options: Any) -> Any:
    """A model of this layer, compiled without a loss unless it adds none itself."""
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, called(layer, inputs))
    loss = None if hosts_terms(layer) else "mse"
    model.compile(keras.optimizers.SGD(0.01), loss=loss, **options)
    return model


@law(book=LAYER_LAWS)
def a_layer_reloads_from_its_config(layer: Any) -> None:
    again = renewed(layer)
    assert set(arguments(type(layer))) <= set(layer.get_config())
    assert json.dumps(again.get_config()) == json.dumps(layer.get_config())
    for training in (False, True):
        expected = array(called(layer, X, training=training))
        equal(array(called(again, X, training=training)), expected)
        equal(total(again), total(layer))
    for old, new in zip(layer.weights, again.weights, strict=True):
        equal(array(new), array(old))


@law(book=LAYER_LAWS)
def a_layer_knows_its_output_shape(layer: Any) -> None:
    symbolic = called(layer, keras.Input(X.shape[1:]))
    assert symbolic.shape == (None, *called(layer, X).shape[1:])


@law(lambda layer: not hasattr(layer, "example_inputs"), book=LAYER_LAWS)
def a_layer_computes_its_output_shape_before_any_call(layer: Any) -> None:
    found = [layer.compute_output_shape(s) for s in (ANY_BATCH, X.shape)]
    shape = tuple(called(layer, X).shape)
    assert list(map(tuple, found)) == [(None, *shape[1:]), shape]
    assert tuple(layer.compute_output_shape(ANY_BATCH)) == (None, *shape[1:])


@law(lambda layer: layer.supports_masking, book=LAYER_LAWS)
def a_mask_goes_on_as_without_the_layer(layer: Any) -> None:
    """As it came, or as the wrapped layer alone would hand it on."""
    given = np.where([[True], [False], [True], [True]], X, 0.0)
    x = keras.layers.Masking()(ops.convert_to_tensor(given))
    assert mask_of(x) == [True, False, True, True]
    bare = getattr(layer, "layer", keras.layers.Identity())
    expected = mask_of(bare(x))
    assert mask_of(called(layer, x)) == expected


@law(book=LAYER_LAWS)
def a_layer_works_in_mixed_precision(layer: Any) -> None:
    for dtype, rounding in (("float16", 2e-3), ("bfloat16", 2e-2)):
        given = ops.cast(X, dtype)
        half, wide = renewed(layer, f"mixed_{dtype}"), renewed(layer)
        expected = array(called(wide, ops.cast(given, "float32")))
        result = called(half, given)
        assert dtype_of(result) == dtype
        equal(array(result), expected, rounding)
        equal(total(half), total(wide), rounding)
        for added in half.losses:
            assert dtype_of(added) == keras.config.floatx()


@law(book=LAYER_LAWS)
def a_layer_gives_out_its_compute_dtype(layer: Any) -> None:
    """Whatever comes in; a layer that does not cast its inputs keeps their dtype.

    A wrapper gives out what the layer inside it does.
    """
    for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
        for came in ("float32", "float16", "bfloat16"):
            made = renewed(layer, policy)
            caster = getattr(made, "layer", made)
            casts = caster.autocast or isinstance(made, kp.layers.Derivative)
            expected = caster.compute_dtype if casts else came
            assert dtype_of(called(made, ops.cast(X, came))) == expected
            assert np.isfinite(total(made))


@law(book=LAYER_LAWS)
def a_layer_trains_and_is_saved_in_a_model(layer: Any) -> None:
    model = model_of(layer, run_eagerly=True)
    targets = np.zeros_like(model.predict(X, verbose=0))
    model.fit(X, targets, epochs=2, verbose=0)
    known = keras.saving.custom_object_scope({type(layer).__name__: type(layer)})
    with known, tempfile.TemporaryDirectory() as folder:
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


def logs_each_term(layer: Any) -> bool:
    """Whether each term has an entry of the logs, which the option `log` can change."""
    return hosts_terms(layer) and getattr(layer, "log", "weight") == "weight"


@law(logs_each_term, book=LAYER_LAWS)
def the_logs_are_those_of_the_terms(layer: Any) -> None:
    """Each term and each strength under its own name, and the terms make the loss."""
    model = model_of(layer, run_eagerly=True)
    model.fit(X, epochs=2, verbose=0)
    logs = model.evaluate(X, verbose=0, return_dict=True)
    terms = kp.terms(model)
    equal(logs["loss"], sum(logs[t.name] for t in terms), 1e-5)
    moving = {f"{t.name}_strength": t.strength for t in terms}
    assert set(logs) <= {"loss", *(t.name for t in terms), *moving}
    for name in set(moving) & set(logs):
        equal(logs[name], moving[name], 1e-5)


@law(hosts_terms, book=LAYER_LAWS)
def an_evaluation_moves_nothing(layer: Any) -> None:
    model = model_of(layer, run_eagerly=True)
    model.fit(X, epochs=1, verbose=0)
    before, strengths = model.predict(X, verbose=0), kp.terms(model)
    logs = [model.evaluate(X, verbose=0, return_dict=True) for _ in range(2)]
    equal(model.predict(X, verbose=0), before)
    for old, new in zip(strengths, kp.terms(model), strict=True):
        equal(new.strength, old.strength)
    moving = [n for n in logs[0] if n.endswith("_strength")]
    for name in moving:
        equal(logs[1][name], logs[0][name])


@law(book=LAYER_LAWS)
def an_empty_batch_adds_nothing(layer: Any) -> None:
    """A batch without samples adds what the weights cost, and never NaN."""
    for training in (False, True):
        called(layer, X[:0], training=training)
        assert np.isfinite(total(layer))
    for weight in layer.variables:
        assert np.all(np.isfinite(array(weight)))
