"""Laws of masked outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from strategies import generic

from keras_penalties import autodiff
from keras_penalties.penalties import Penalty
from laws.book import ROUNDING, array, by_gradient, equal, law, tensor, value


def shape_bound(p: Penalty) -> bool:
    """Whether the penalty of some rows alone is another one: they are told apart."""
    return any(getattr(p, name, None) for name in ("groups", "block"))


def each_sample_is_one(p: Penalty) -> bool:
    """Whether steps within a sample belong together."""
    return any(getattr(part, "axis", None) == 0 for part in p.parts())


def masks(x: np.ndarray) -> list[np.ndarray]:
    """Of samples and of steps, some real and some not."""
    rng = np.random.default_rng(6)
    found = []
    for rank in range(1, max(x.ndim, 2)):
        mask = rng.random(x.shape[:rank]) < 0.6
        mask.reshape(-1)[:2] = True, False
        found.append(mask)
    return found


def masked(p: Penalty, x: np.ndarray, mask: Any) -> tuple[float, np.ndarray]:
    found = autodiff.value_and_gradient(lambda x: p.masked_value(x, mask), tensor(x))
    return float(array(found[0])), array(found[1])


def alone(p: Penalty, x: np.ndarray) -> tuple[float, np.ndarray] | None:
    """The value and the slope of what is real, or None if that does not fit."""
    try:
        found = autodiff.value_and_gradient(p.value, tensor(x))
    except ValueError:
        return None
    return float(array(found[0])), array(found[1])


def takes_masks(p: Penalty, x: np.ndarray, mask: Any) -> bool:
    """Whether a masked value is defined; if not, it is refused in these words."""
    try:
        p.masked_value(tensor(x), mask)
    except ValueError as error:
        if "is not defined for a part of an output" not in str(error):
            raise
        return False
    return True


@law(by_gradient)
def what_is_masked_is_absent(p: Penalty) -> None:
    for x in (x for x in generic(p) if x.ndim > 1):
        for mask in masks(x):
            if not takes_masks(p, x, mask):
                continue
            dirty = x.copy()
            dirty[~mask] = np.nan
            found, slope = masked(p, dirty, mask)
            assert np.all(slope[~mask] == 0)
            nothing, flat = masked(p, x, np.zeros_like(mask))
            assert nothing == 0.0
            assert np.all(flat == 0)
            equal(masked(p, x, np.ones_like(mask))[0], value(p, x), 10 * ROUNDING)
            if shape_bound(p) or (mask.ndim > 1 and each_sample_is_one(p)):
                continue
            if expected := alone(p, x[mask]):
                equal(found, expected[0], 10 * ROUNDING)
                equal(slope[mask], expected[1], 100 * ROUNDING)


@law(by_gradient)
def a_mask_that_does_not_fit_is_refused(p: Penalty) -> None:
    x = generic(p)[-1]
    for shape in ((x.shape[0] + 1,), (), (*x.shape, 1)):
        with pytest.raises(ValueError, match="mask"):
            p.masked_value(tensor(x), np.ones(shape, bool))
