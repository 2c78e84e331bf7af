"""Laws of the metrics."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import compat
from keras_penalties.metrics import Metric
from laws.book import METRIC_LAWS, array, entry_of, equal, law, stands_alone

ROWS = 12


def data(metric: Metric, seed: int = 0) -> tuple[np.ndarray, ...]:
    return metric.example_data(np.random.default_rng(seed), ROWS)


def again(metric: Metric) -> Any:
    """The same metric, which has seen nothing."""
    return type(metric).from_config(json.loads(json.dumps(metric.get_config())))


def result(metric: Metric, *batches: Any, **options: Any) -> float:
    for batch in batches:
        metric.update_state(*batch, **options)
    return float(array(metric.result()))


@law(book=METRIC_LAWS)
def a_metric_reloads_as_it_was(metric: Metric) -> None:
    expected = result(metric, data(metric))
    for given in ({}, {"name": "other", "dtype": "float16"}):
        before = type(metric).from_config({**metric.get_config(), **given})
        with keras.saving.custom_object_scope({type(metric).__name__: type(metric)}):
            saved = json.loads(json.dumps(keras.saving.serialize_keras_object(before)))
            loaded: Any = keras.saving.deserialize_keras_object(saved)
        for after in (again(before), loaded):
            assert type(after) is type(before)
            assert after.get_config() == before.get_config()
            assert keras.backend.standardize_dtype(after.result().dtype) == after.dtype
            rounding = 2e-3 if after.dtype == "float16" else 1e-6
            equal(result(after, data(metric)), expected, rounding)


@law(book=METRIC_LAWS)
def a_metric_of_parts_is_that_of_the_whole(metric: Metric) -> None:
    whole = data(metric)
    expected = result(metric, whole)
    for ends in ([1], [5, 7], [0, 4, 4, 11]):
        parts = zip(*(np.split(x, ends) for x in whole), strict=True)
        equal(result(again(metric), *parts), expected, 1e-5)


@law(book=METRIC_LAWS)
def a_metric_forgets_at_a_reset(metric: Metric) -> None:
    first = result(metric, data(metric))
    other = tuple(2.0 * x + 1.0 for x in data(metric, 1))
    result(metric, other)
    metric.reset_state()
    result(metric, other)
    metric.reset_state()
    equal(result(metric, data(metric)), first, 1e-6)


@law(book=METRIC_LAWS)
def a_weight_is_how_often_a_row_counts(metric: Metric) -> None:
    given = data(metric)
    often = np.arange(ROWS) % 4
    expected = result(again(metric), [np.repeat(x, often, axis=0) for x in given])
    for weight in (often, often[:, None], often.astype("float32")):
        equal(result(again(metric), given, sample_weight=weight), expected, 1e-5)
    steps = [x.reshape(3, ROWS // 3, -1) for x in given]
    weight = often.reshape(3, -1)
    equal(result(again(metric), steps, sample_weight=weight), expected, 1e-5)


@law(book=METRIC_LAWS)
def a_row_without_weight_has_no_part(metric: Metric) -> None:
    given = data(metric)
    here = np.arange(ROWS) % 4 != 1
    expected = result(again(metric), [x[here] for x in given])
    for hole in (np.nan, np.inf):
        holed = [np.where(here[:, None], x, hole).astype("float32") for x in given]
        zeros = here.astype("float32")
        equal(result(again(metric), holed, sample_weight=zeros), expected, 1e-5)
        masked = ops.convert_to_tensor(holed[-1]) * 1.0
        holed[-1] = compat.carry_mask(masked, ops.convert_to_tensor(here))
        equal(result(again(metric), holed), expected, 1e-5)


@law(stands_alone, book=METRIC_LAWS)
def a_metric_compiles_by_its_name(metric: Metric) -> None:
    """In a compiled loop over batches, and after a reload."""
    entry, plain = entry_of(metric), type(metric)()
    given = data(metric)
    expected = result(plain, given)
    inputs = keras.Input(given[-1].shape[1:])
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile("sgd", "mse", metrics=[entry.name, entry.key])
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        loaded = keras.saving.load_model(f"{folder}/model.keras")
        loaded.save(f"{folder}/again.keras")
    for each in (model, loaded):
        logs = each.evaluate(
            given[-1], given[0], batch_size=5, verbose=0, return_dict=True
        )
        equal(logs[entry.name], expected, 1e-5)
        equal(logs[entry.key], expected, 1e-5)
