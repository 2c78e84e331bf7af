"""Laws of the losses: whose a weight or a mask is, and what is absent has no part."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from keras import ops
from strategies import WIDE

from keras_penalties import autodiff, compat
from keras_penalties.losses import Loss
from keras_penalties.losses.base import BatchLoss
from laws.book import LOSS_LAWS, array, equal, law, tensor
from laws.losses import changed, samples

RNG = np.random.default_rng(5)
KEPT = np.array([0, 2, 4])
ABSENT = np.array([1, 3])
HERE = np.isin(np.arange(5), KEPT)
UNKNOWN = -7


def masked(loss: Loss, y_true: Any, y_pred: Any, mask: Any, weight: Any = None) -> Any:
    """The loss where a mask travels with the predictions, as a layer leaves it."""
    y_pred = compat.carry_mask(tensor(y_pred) * 1.0, ops.convert_to_tensor(mask))
    return loss(y_true, y_pred, weight)


def per_sample(loss: Loss) -> bool:
    """Whether the samples may lie on several axes."""
    return not isinstance(loss, BatchLoss)


@law(per_sample, book=LOSS_LAWS)
def weights_and_masks_belong_to_samples(loss: Loss) -> None:
    mean, total, shared = (
        changed(loss, reduction=reduction, dtype=WIDE)
        for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight")
    )
    for batch, steps in ((2, 3), (3, 3)):
        y_true, y_pred = loss.example_data(RNG, batch * steps)
        values = samples(loss, y_true, y_pred).reshape(batch, steps)
        y_true = y_true.reshape(batch, steps, *y_true.shape[1:])
        y_pred = tensor(y_pred.reshape(batch, steps, *y_pred.shape[1:]))
        whole = RNG.random((batch, steps)) + 0.5
        there = (np.arange(batch * steps) % 3 != 1).reshape(batch, steps)
        first = np.arange(batch) != 1
        wide = np.broadcast_to(whole[:, :1], (batch, steps))
        heavy = wide * values
        equal(array(mean(y_true, y_pred, whole[:, 0])), heavy.mean())
    equal(array(total(y_true, y_pred, whole[:, 0])), heavy.sum())
    came = masked(shared, y_true, y_pred, there, whole[:, 0])
    equal(array(came), (heavy * there).sum() / (wide * there).sum())
    for w, m in (
        (whole[:, 0], there),
        (whole[:, :1], first),
        (whole, first[:, None]),
        (whole[..., None], there[..., None]),
    ):
        wide_w = np.broadcast_to(w.reshape(batch, -1), (batch, steps))
        wide_m = np.broadcast_to(m.reshape(batch, -1), (batch, steps))
        came = masked(mean, y_true, y_pred, m, w)
        equal(array(came), (wide_w * values * wide_m).sum() / wide_m.sum())
    with pytest.raises(ValueError, match=r"sample_weight.*\(3, 3\)"):
        mean(y_true, y_pred, np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"mask.*\(3, 3\)"):
        masked(mean, y_true, y_pred, np.ones((3, 2), "bool"))


def rest_only(loss: Loss, came: Any, y_pred: Any, y_true: Any, clean: Any) -> None:
    """The value and the gradient are those of the kept rows alone."""
    alone, slope = autodiff.value_and_gradient(
        lambda y: loss(y_true[KEPT], y), tensor(clean[KEPT])
    )
    value, gradient = map(array, autodiff.value_and_gradient(came, tensor(y_pred)))
    equal(value, array(alone))
    equal(gradient[KEPT], array(slope))
    np.testing.assert_array_equal(gradient[ABSENT], 0.0)


@law(book=LOSS_LAWS)
def what_is_absent_has_no_part(loss: Loss) -> None:
    """Whatever a masked sample or one of weight 0 holds, in value and gradient."""
    y_true, clean = loss.example_data(RNG, 5)
    mean, total = (
        changed(loss, reduction=reduction, dtype=WIDE)
        for reduction in ("sum_over_batch_size", "sum")
    )
    weight = HERE.astype("float32")
    for hole in (np.nan, np.inf):
        y_pred, holed = clean.copy(), y_true.copy()
        y_pred[ABSENT] = hole
        holed[ABSENT] = hole if y_true.dtype.kind == "f" else UNKNOWN
        given = (y_pred, y_true, clean)
        rest_only(mean, lambda y, t=holed: masked(mean, t, y, HERE), *given)
        rest_only(total, lambda y, t=holed: total(t, y, weight), *given)
    nobody = np.zeros(5, "bool")
    for came in (
        lambda y: masked(mean, y_true, y, nobody),
        lambda y: mean(y_true, y, nobody.astype("float32")),
    ):
        value, gradient = autodiff.value_and_gradient(came, tensor(y_pred))
        assert float(value) == 0.0
        np.testing.assert_array_equal(array(gradient), 0.0)


@law(book=LOSS_LAWS)
def an_unknown_target_has_no_part(loss: Loss) -> None:
    y_true, y_pred = loss.example_data(RNG, 5)
    floats = np.result_type(y_true.dtype, "float32")
    for ignore, dtype in ((UNKNOWN, y_true.dtype), (float("nan"), floats)):
        holed = y_true.astype(dtype)
        holed[ABSENT] = ignore
        mean = changed(loss, dtype=WIDE, ignore=ignore)
        rest_only(mean, lambda y, m=mean, t=holed: m(t, y), y_pred, y_true, y_pred)
        equal(
            array(mean(y_true, y_pred)),
            array(changed(mean, ignore=None)(y_true, y_pred)),
        )
        nothing = np.full_like(holed, ignore)
        value, gradient = autodiff.value_and_gradient(
            lambda y, m=mean, t=nothing: m(t, y), tensor(y_pred)
        )
        assert float(value) == 0.0
        np.testing.assert_array_equal(array(gradient), 0.0)
        config = json.loads(json.dumps(mean.get_config()))
        again = type(loss).from_config(config)
        assert again.get_config() == mean.get_config()
        assert array(again(holed, y_pred)) == array(mean(holed, y_pred))
    assert mean.get_config()["ignore"] == "nan"
