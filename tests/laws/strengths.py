"""Laws of the strengths, seen from outside: in the logs of a model that has one."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

import keras_penalties as kp
from laws.book import STRENGTH_LAWS, array, equal, law

X = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3)).astype("float32")


def model_of(strength: Any, rate: float = 0.05) -> Any:
    """A model with one term of this strength, on an output that training moves."""
    inputs = keras.Input((3,))
    start = keras.initializers.Constant(0.3)
    dense = keras.layers.Dense(2, kernel_initializer=start)
    if isinstance(strength, kp.strengths.Learned):
        host = kp.layers.AddLoss("mean_squared_error", strength, name="term")
        outputs = host(dense(inputs), y_true=inputs[:, :2])
    else:
        penalty = kp.penalties.L1(strength)
        outputs = kp.layers.ActivityPenalty(penalty, name="term")(dense(inputs))
    model = keras.Model(inputs, outputs)
    # With a loss: torch has no gradient at the steps that a `Lazy` leaves out.
    model.compile(keras.optimizers.SGD(rate), loss="mse")
    return model


def history_of(model: Any, steps: int, x: Any = X) -> list[float]:
    """The strength at each of so many training steps, as the logs show it.

    Batch by batch, as `fit` would spend most of its time on the start of each epoch.
    """
    y = np.zeros((len(x), 2), "float32")
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(steps)]
    (name,) = (n for n in logs[0] if n.endswith("_strength"))
    return [float(each[name]) for each in logs]


def moves_by_step(strength: Any) -> bool:
    return isinstance(strength, LearningRateSchedule)


def rises(strength: Any) -> bool:
    """A target that may rise above where it starts."""
    return isinstance(strength, kp.Target) and strength.kind != ">="


@law(book=STRENGTH_LAWS)
def a_strength_reloads_as_it_was(strength: Any) -> None:
    again = type(strength).from_config(json.loads(json.dumps(strength.get_config())))
    with keras.saving.custom_object_scope({type(strength).__name__: type(strength)}):
        saved = json.loads(json.dumps(keras.saving.serialize_keras_object(strength)))
        loaded = keras.saving.deserialize_keras_object(saved)
    for other in (again, loaded):
        assert type(other) is type(strength)
        assert other == strength
        assert hash(other) == hash(strength)
        assert repr(other) == repr(strength)
        assert vars(other) == vars(strength)


@law(moves_by_step, book=STRENGTH_LAWS)
def a_schedule_is_followed_step_by_step(strength: Any) -> None:
    again = type(strength).from_config(strength.get_config())
    expected = [float(array(again(k))) for k in range(6)]
    np.testing.assert_allclose(history_of(model_of(strength), 6), expected, rtol=1e-6)


@law(book=STRENGTH_LAWS)
def a_strength_goes_on_after_it_was_saved(strength: Any) -> None:
    model = model_of(strength)
    history_of(model, 3)
    with (
        tempfile.TemporaryDirectory() as folder,
        keras.saving.custom_object_scope({type(strength).__name__: type(strength)}),
    ):
        model.save(f"{folder}/model.keras")
        again = keras.saving.load_model(f"{folder}/model.keras")
    equal(history_of(again, 4), history_of(model, 4))


@law(rises, book=STRENGTH_LAWS)
def a_target_rises_where_its_measure_is_too_large(strength: Any) -> None:
    """And falls where it is too small: of the mean, which alone may be negative."""
    start = kp.terms(model_of(strength))[0].strength
    high = history_of(model_of(strength, rate=0.0), 4, X + 9.0)
    assert start <= high[0] < high[-1]
    if strength.of == "mean" and (strength.kind == "==" or strength.relative):
        low = history_of(model_of(strength, rate=0.0), 4, -9.0 - X)
        assert start >= low[0] > low[-1]
