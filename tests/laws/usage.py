"""Laws of dtypes and sizes, of names and configs, and of the slots of Keras."""

from __future__ import annotations

import copy
import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from strategies import extreme, generic, largest, special

import keras_penalties as kp
from keras_penalties.config import arguments
from keras_penalties.penalties import Penalty
from laws.book import (
    PRECISE,
    array,
    by_gradient,
    entry_of,
    equal,
    law,
    prox,
    slope,
    tensor,
    value,
)


@law()
def every_dtype_is_computed_wide(p: Penalty) -> None:
    for dtype in ("float16", "bfloat16", "float32", *(["float64"] if PRECISE else [])):
        given = tensor(generic(p)[-1], dtype)
        wide = "float64" if dtype == "float64" else "float32"
        result = p.value(given)
        assert keras.backend.standardize_dtype(result.dtype) == wide
        equal(array(result), value(p, given, wide), 1e-6)
        assert np.all(np.isfinite(slope(p, given, dtype)))
        if p.has_prox:
            moved = p.prox(given, 0.5)
            assert keras.backend.standardize_dtype(moved.dtype) == dtype
            rounding = 0.01 if "16" in dtype else 1e-6
            equal(array(moved), prox(p, given, 0.5, wide), rounding)


@law()
def extremes_are_never_nan(p: Penalty) -> None:
    """Huge and tiny give a number, infinite only if it truly is beyond float32."""
    for x in extreme(p) + largest(p):
        with np.errstate(over="ignore"):
            small = value(p, x, "float32"), slope(p, x, "float32")
        assert not any(np.any(np.isnan(found)) for found in small), x
        if PRECISE and np.max(np.abs(x)) < 1e38:
            for found, true in zip(small, (value(p, x), slope(p, x)), strict=True):
                sure = np.abs(true) < 1e37
                assert np.all(np.isfinite(found) | ~sure), x
    rng = np.random.default_rng(6)
    for x in [*extreme(p), *largest(p)] if p.has_prox else []:
        steps = [0.0, 0.5, 1e30]
        if p.per_entry:
            spread = 10.0 ** rng.uniform(-12.0, 0.0, x.shape)
            steps += [spread, np.where(rng.random(x.shape) < 0.4, 0.0, spread)]
        for t in steps:
            assert not np.any(np.isnan(prox(p, x, t, "float32"))), (x, t)
    for x in largest(p) if p.has_prox else []:
        equal(prox(p, x, 0.0, "float32"), np.float32(x), 1e-5)
    for x in extreme(p) if p.has_prox else []:
        for t in (0.0, 1e-3, 5.0, 1e10):
            assert np.all(np.isfinite(prox(p, x, t, "float32"))), (x, t)


@law()
def config_makes_an_equal_penalty(p: Penalty) -> None:
    assert list(p.get_config()) == arguments(type(p))
    again = type(p).from_config(json.loads(json.dumps(p.get_config())))
    with keras.saving.custom_object_scope({type(p).__name__: type(p)}):
        saved = json.loads(json.dumps(keras.saving.serialize_keras_object(p)))
        loaded = keras.saving.deserialize_keras_object(saved)
    x = generic(p)[0]
    for other in (again, loaded, copy.deepcopy(p)):
        assert type(other) is type(p)
        assert other == p
        assert hash(other) == hash(p)
        assert repr(other) == repr(p)
        equal(value(other, x), value(p, x))
    assert repr(p).startswith(type(p).__name__ + "(")


@law(lambda p: entry_of(p) is not None)
def names_lead_to_the_penalty(p: Penalty) -> None:
    entry, text = entry_of(p), repr(p)
    inner = text[text.index("(") :]
    for name in (entry.key, entry.name, type(p).__name__):
        assert kp.get(name + inner) == p
    assert kp.get(keras.saving.serialize_keras_object(p)) == p
    assert keras.regularizers.get(p) is p


@law(lambda p: p.rank > 0)
def a_smaller_rank_is_refused(p: Penalty) -> None:
    with pytest.raises(ValueError, match="rank"):
        p.value(ops.zeros((3,) * (p.rank - 1)))


class Holder(keras.layers.Layer):
    """One weight with a regularizer, and nothing else."""

    def __init__(self, penalty: Penalty, start: np.ndarray) -> None:
        super().__init__()
        self.penalty, self.start = penalty, start

    def build(self, input_shape: Any) -> None:
        self.weight = self.add_weight(
            shape=self.start.shape,
            initializer=lambda shape, dtype: tensor(self.start, dtype),
            regularizer=self.penalty,
        )

    def call(self, x: Any) -> Any:
        return x


@law(lambda p: p.statistic is None and by_gradient(p))
def a_weight_slot_trains(p: Penalty) -> None:
    """One step of SGD on a model with no loss but the penalty."""
    start, rate = generic(p)[-1], 0.01
    model = keras.Sequential([keras.Input((1,)), holder := Holder(p, start)])
    sgd = keras.optimizers.SGD(rate)
    model.compile(sgd, loss="mean_squared_error", run_eagerly=True)
    loss = model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    equal(float(loss), p.strength * value(p, start), 1e-5)
    expected = start - rate * p.strength * slope(p, start)
    np.testing.assert_allclose(array(holder.weight), expected, rtol=1e-5, atol=1e-6)


@law(lambda p: p.statistic is not None)
def a_statistic_is_refused_in_a_slot(p: Penalty) -> None:
    """Keras divides by the batch size there, also in a function of the user's."""
    x = next(x for x in generic(p) if x.ndim >= 2)
    for slot in (p, lambda x: p(x), p + kp.penalties.L1(0.1)):
        layer = keras.layers.Activation("linear", activity_regularizer=slot)
        with pytest.raises(ValueError, match="ActivityPenalty"):
            layer(tensor(x))
    layer = kp.layers.ActivityPenalty(p)
    layer(tensor(x, "float32"))
    equal(float(array(sum(layer.losses))), p.strength * value(p, x), 1e-5)


@law(lambda p: not p.has_slope)
def what_has_no_slope_is_refused_where_a_gradient_would_act(p: Penalty) -> None:
    x = generic(p)[-1]
    model = keras.Sequential([keras.Input((1,)), Holder(p, x)])
    model.compile("sgd", loss="mean_squared_error", run_eagerly=True)
    refused = pytest.raises(ValueError, match="Proximal")
    with refused:
        model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
    with refused:
        (p + kp.penalties.L1(0.1))(x)
    with refused:
        kp.layers.ActivityPenalty(p)
    with refused:
        kp.layers.Penalized(keras.layers.Dense(2), weights={"kernel": p})
    if p.indicator:
        with pytest.raises(TypeError, match="strength"):
            p.with_strength(2.0)


@law(lambda p: p.indicator)
def an_indicator_is_0_in_its_set_only(p: Penalty) -> None:
    for x in generic(p) + special(p):
        near = prox(p, x, 0.5)
        assert value(p, near) == 0.0
        apart = np.max(np.abs(near - x)) > 1e-3
        assert value(p, x) == (np.inf if apart else 0.0)
        equal(prox(p, near, 0.5), near)
