"""Laws of the losses."""

from __future__ import annotations

import inspect
import json
from typing import Any

import keras
import numpy as np
from keras import ops
from strategies import WIDE

import keras_penalties as kp
from keras_penalties import autodiff
from keras_penalties.losses import Loss
from keras_penalties.registry import registered
from laws.book import LOSS_LAWS, PRECISE, array, equal, law, tensor

BATCH = 5


def data(loss: Loss, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return loss.example_data(np.random.default_rng(seed), BATCH)


def changed(loss: Loss, **arguments: Any) -> Loss:
    """The same loss but for these arguments."""
    return type(loss).from_config({**loss.get_config(), **arguments})


def samples(loss: Loss, y_true: Any, y_pred: Any) -> np.ndarray:
    """The loss before its reduction."""
    return array(changed(loss, reduction=None, dtype=WIDE)(y_true, y_pred))


@law(book=LOSS_LAWS)
def a_loss_has_one_value_for_each_sample(loss: Loss) -> None:
    y_true, y_pred = data(loss)
    values = samples(loss, y_true, y_pred)
    assert values.ndim >= 1
    assert values.shape[0] == BATCH
    assert np.all(np.isfinite(values))


@law(book=LOSS_LAWS)
def a_loss_reduces_and_weighs_as_keras_does(loss: Loss) -> None:
    y_true, y_pred = data(loss)
    values = samples(loss, y_true, y_pred)
    weights = np.arange(1.0, BATCH + 1.0).reshape(-1, *[1] * (values.ndim - 1))
    weighed = weights * values
    for reduction, expected, heavy in (
        ("sum", np.sum(values), np.sum(weighed)),
        ("sum_over_batch_size", np.mean(values), np.mean(weighed)),
    ):
        reduced = changed(loss, reduction=reduction, dtype=WIDE)
        equal(array(reduced(y_true, y_pred)), expected)
        equal(array(reduced(y_true, y_pred, sample_weight=weights)), heavy)


@law(book=LOSS_LAWS)
def a_loss_has_the_secants_slope(loss: Loss) -> None:
    h, bound = (1e-6, 1e-6) if PRECISE else (1e-2, 5e-3)
    y_true, y_pred = data(loss)
    total = changed(loss, reduction="sum", dtype=WIDE)
    slope = array(autodiff.gradient(lambda y: total(y_true, y), tensor(y_pred)))
    assert np.all(np.isfinite(slope))
    rng, middle = np.random.default_rng(3), float(total(y_true, tensor(y_pred)))
    for _ in range(3):
        d = rng.standard_normal(y_pred.shape)
        ends = [float(total(y_true, tensor(y_pred + s * h * d))) for s in (-1, 1)]
        secants = [(middle - ends[0]) / h, (ends[1] - middle) / h]
        room = bound * (1.0 + np.max(np.abs(secants)) + abs(middle))
        assert min(secants) - room <= np.sum(slope * d) <= max(secants) + room


@law(book=LOSS_LAWS)
def a_loss_is_finite_in_half_precision(loss: Loss) -> None:
    y_true, y_pred = data(loss)
    for dtype, rounding in (("float16", 2e-3), ("bfloat16", 2e-2)):
        given = tensor(y_pred, dtype)
        half = changed(loss, dtype=dtype)
        result = half(y_true, given)
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        wide = changed(loss, dtype="float32")(y_true, ops.cast(given, "float32"))
        equal(array(result), array(wide), rounding)
        slope = array(autodiff.gradient(lambda y, h=half: h(y_true, y), given))
        assert np.all(np.isfinite(slope))


@law(book=LOSS_LAWS)
def a_loss_reloads_as_it_was(loss: Loss) -> None:
    y_true, y_pred = data(loss)
    for given in ({}, {"reduction": "sum", "dtype": "float16", "name": "other"}):
        before = changed(loss, **given)
        again = type(loss).from_config(json.loads(json.dumps(before.get_config())))
        with keras.saving.custom_object_scope({type(loss).__name__: type(loss)}):
            saved = json.loads(json.dumps(keras.saving.serialize_keras_object(before)))
            loaded = keras.saving.deserialize_keras_object(saved)
        for after in (again, loaded):
            assert type(after) is type(before)
            assert after.get_config() == before.get_config()
            for name in ("name", "reduction", "dtype"):
                assert getattr(after, name) == getattr(before, name)
            assert array(after(y_true, y_pred)) == array(before(y_true, y_pred))


def entry_of(loss: Loss) -> Any:
    return next((e for e in registered("loss") if e.obj is type(loss)), None)


def stands_alone(loss: Loss) -> bool:
    """Whether the name alone, without arguments, is a loss."""
    parameters = inspect.signature(type(loss)).parameters.values()
    options = inspect.Parameter.VAR_KEYWORD
    required = [p for p in parameters if p.default is p.empty and p.kind != options]
    return entry_of(loss) is not None and not required


@law(stands_alone, book=LOSS_LAWS)
def a_loss_answers_to_its_names(loss: Loss) -> None:
    entry = entry_of(loss)
    assert kp.losses.get(entry.name + "()").get_config() == type(loss)().get_config()
    for name in (entry.key, entry.name):
        assert type(kp.losses.get(name)) is type(loss)
        assert type(keras.losses.get(name)) is type(loss)


@law(stands_alone, book=LOSS_LAWS)
def a_loss_compiles_by_its_name(loss: Loss) -> None:
    default = type(loss)()
    y_true, y_pred = data(default)
    inputs = keras.Input(y_pred.shape[1:])
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile("sgd", loss=entry_of(loss).name, run_eagerly=True)
    result = model.evaluate(y_pred, y_true, batch_size=BATCH, verbose=0)
    equal(result, float(default(y_true, y_pred.astype("float32"))), 1e-5)
