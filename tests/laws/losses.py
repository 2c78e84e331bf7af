"""Laws of the losses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from strategies import WIDE, huge

import keras_penalties as kp
from keras_penalties import autodiff
from keras_penalties.compiling import compiled
from keras_penalties.losses import (
    Distillation,
    EnergyScore,
    EnsembleCRPS,
    GaussianNLL,
    Loss,
    NTXent,
    SupervisedContrastive,
)
from laws.book import (
    LOSS_LAWS,
    PRECISE,
    array,
    entry_of,
    equal,
    law,
    stands_alone,
    tensor,
)

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


def summed(loss: Loss, y_true: Any) -> Callable[[Any], float]:
    """The sum over the samples, as a function of the predictions."""
    total = changed(loss, reduction="sum", dtype=WIDE)
    f = compiled(lambda y_pred: total(y_true, y_pred))
    return lambda y_pred: float(array(f(tensor(y_pred))))


def sloped(loss: Loss, y_true: Any) -> Callable[[Any], np.ndarray]:
    """The gradient of that sum."""
    total = changed(loss, reduction="sum", dtype=WIDE)
    g = compiled(lambda y: autodiff.gradient(lambda y: total(y_true, y), y))
    return lambda y_pred: array(g(tensor(y_pred)))


def slope(loss: Loss, y_true: Any, y_pred: Any) -> np.ndarray:
    return sloped(loss, y_true)(y_pred)


def has_the_slope_of_its_value(loss: Loss) -> bool:
    """Not so under `beta`, which weighs each sample by what counts as a constant."""
    return not (isinstance(loss, GaussianNLL) and loss.beta > 0)


@law(has_the_slope_of_its_value, book=LOSS_LAWS)
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


def special(y_true: np.ndarray, y_pred: np.ndarray) -> Iterator[np.ndarray]:
    """Where losses have kinks: at the target, at ties, at margins of 1, at 0."""
    if y_true.ndim == y_pred.ndim:  # the first of what is predicted of each target
        width = min(y_true.shape[-1], y_pred.shape[-1])
        hit = y_pred.copy()
        hit[..., :width] = y_true[..., :width]
        yield hit
    if y_true.ndim == 1 and y_true.dtype.kind == "i":  # each margin is exactly 1
        yield np.asarray(y_true[:, None] == np.arange(y_pred.shape[-1]), "float64")
    yield from (np.round(y_pred), np.sign(y_pred), 0.7 + 0.0 * y_pred, 0.0 * y_pred)


def directions(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((2, *shape))


def one_sided(f: Callable[[Any], float], x: np.ndarray, d: np.ndarray) -> float:
    """The derivative of f at x to the side of d, extrapolated from two secants."""
    h = 1e-6 if PRECISE else 1e-2
    at_x = f(x)
    far, near = ((f(x + step * d) - at_x) / step for step in (h, h / 2))
    return 2.0 * near - far


def room(*numbers: float) -> float:
    return (1e-5 if PRECISE else 2e-2) * (1.0 + max(map(abs, numbers)))


def of_embeddings(loss: Loss) -> bool:
    """A loss of directions, which has no value near embeddings of length 0."""
    return isinstance(loss, NTXent | SupervisedContrastive)


def of_ensembles(loss: Loss) -> bool:
    return isinstance(loss, EnsembleCRPS | EnergyScore)


@law(book=LOSS_LAWS)
def a_loss_has_a_finite_slope_everywhere(loss: Loss) -> None:
    y_true, y_pred = data(loss)
    gradient = sloped(loss, y_true)
    for x in special(y_true, y_pred):
        assert np.all(np.isfinite(gradient(x))), x


@law(book=LOSS_LAWS)
def an_empty_batch_costs_nothing(loss: Loss) -> None:
    """A batch without samples costs 0 and has no gradient, and not NaN."""
    y_true, y_pred = (y[:0] for y in data(loss))
    for reduction in ("sum", "sum_over_batch_size", "mean_with_sample_weight", None):
        for weight in (None, np.zeros(0, "float32")):
            given = changed(loss, reduction=reduction)
            found = array(given(y_true, y_pred, sample_weight=weight))
            assert found.shape[:1] == (() if reduction else (0,))
            assert np.all(found == 0)
            slope = autodiff.gradient(
                lambda y, f=given, w=weight: ops.sum(f(y_true, y, sample_weight=w)),
                tensor(y_pred),
            )
            assert tuple(slope.shape) == y_pred.shape


def huge_data(loss: Loss) -> Iterator[tuple[Any, np.ndarray]]:
    """Huge targets, of which the domain has some, huge predictions, and both."""
    y_true, y_pred = data(loss)
    targets = [y_true]
    if y_true.dtype.kind == "f":
        low = 0.0 if np.all(y_true >= 0) else -np.inf
        targets = [np.maximum(y, low) for y in huge(y_true)]
        targets = [np.where(y == 0, y_true, y) for y in targets]  # of the domain's end
        if isinstance(loss, Distillation):  # the first column has labels
            targets = [np.concatenate([y_true[:, :1], y[:, 1:]], 1) for y in targets]
    yield from ((y, y_pred) for y in targets)
    for n, x in enumerate(huge(y_pred)):
        yield y_true, x
        yield targets[n % len(targets)], x


@law(book=LOSS_LAWS)
def a_loss_of_huge_numbers_is_never_nan(loss: Loss) -> None:
    """What float32 can't hold is infinite, what it can hold is right."""
    narrow, wide = (changed(loss, reduction="sum", dtype=d) for d in ("float32", WIDE))
    dtype = "float32" if data(loss)[0].dtype.kind == "f" else "int32"
    both = compiled(lambda y, x: autodiff.value_and_gradient(lambda x: narrow(y, x), x))
    for y_true, y_pred in huge_data(loss):
        found = both(tensor(y_true, dtype), tensor(y_pred, "float32"))
        assert not any(np.any(np.isnan(array(f))) for f in found), (y_true, y_pred)
        if of_ensembles(loss):  # a difference of two huge means, which rounds
            continue
        if PRECISE and np.isfinite(value := array(found[0])):
            equal(value, array(wide(y_true, tensor(y_pred))), 1e-4)


@law(
    lambda loss: has_the_slope_of_its_value(loss) and not of_embeddings(loss),
    book=LOSS_LAWS,
)
def the_slope_at_a_kink_lies_between_those_beside_it(loss: Loss) -> None:
    y_true, y_pred = data(loss)
    f, slope_at = summed(loss, y_true), sloped(loss, y_true)
    for x in special(y_true, y_pred):
        gradient = slope_at(x)
        # Along the slope itself, one that is too steep shows the most.
        for d in [gradient / max(np.linalg.norm(gradient), 1.0), *directions(x.shape)]:
            sides = one_sided(f, x, d), -one_sided(f, x, -d)
            bound, found = room(*sides), np.sum(gradient * d)
            assert min(sides) - bound <= found <= max(sides) + bound, x


@law(
    lambda loss: (
        has_the_slope_of_its_value(loss)
        and not of_embeddings(loss)
        and not of_ensembles(loss)
    ),
    book=LOSS_LAWS,
)
def the_slope_at_a_kink_is_the_subgradient_of_least_norm(loss: Loss) -> None:
    """That of the steepest descent: along it the loss falls by the norm of the slope.

    Any other subgradient is longer than the descent that it leads to, so this says
    which one it is, and no backend may differ.
    """
    y_true, y_pred = data(loss)
    f, slope_at = summed(loss, y_true), sloped(loss, y_true)
    for x in special(y_true, y_pred):
        gradient = slope_at(x)
        length = float(np.linalg.norm(gradient))
        if length > 0:
            descent = -one_sided(f, x, -gradient / length)
            assert abs(descent - length) <= room(length), x


@law(of_ensembles, book=LOSS_LAWS)
def the_slope_at_a_kink_of_an_ensemble_is_the_middle(loss: Loss) -> None:
    """Its kinks bend up at the target, and down where two members are equal."""
    y_true, y_pred = data(loss)
    hit, *others = special(y_true, y_pred)
    # Equal members of `EnsembleCRPS` have the slopes of their places when sorted.
    slope_at = sloped(loss, y_true)
    for x in [hit] if isinstance(loss, EnsembleCRPS) else [hit, *others]:
        gradient = slope_at(x)
        for d in directions(x.shape):
            sides = [slope_at(x + s * 1e-4 * d) for s in (-1, 1)]
            np.testing.assert_allclose(gradient, np.mean(sides, axis=0), atol=2e-3)


@law(of_embeddings, book=LOSS_LAWS)
def large_labels_are_told_apart(loss: Loss) -> None:
    """Also beyond 2^24, where float32 has no odd numbers."""
    y_true, y_pred = data(loss)
    narrow = changed(loss, reduction=None, dtype="float32")
    expected = array(narrow(y_true, y_pred))
    for dtype in ("int32", "uint32", "int64"):
        labels = (y_true + 2**24).astype(dtype)
        equal(array(narrow(labels, y_pred)), expected)


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
