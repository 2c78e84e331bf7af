"""What a law is, and what the laws are written with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from strategies import WIDE

from keras_penalties import numerics
from keras_penalties.penalties import Penalty, Separable
from keras_penalties.registry import registered

PRECISE = WIDE == "float64"
ROUNDING = 1e-10 if PRECISE else 1e-5
STEPS = (0.05, 0.5, 5.0)


class Law(NamedTuple):
    """A check, and the penalties that it speaks of."""

    check: Callable[[Penalty], None]
    applies: Callable[[Penalty], bool]


LAWS: dict[str, Law] = {}


def law(applies: Callable[[Penalty], bool] = lambda p: True) -> Callable[..., Any]:
    def enter(check: Callable[[Penalty], None]) -> Callable[[Penalty], None]:
        LAWS[check.__name__] = Law(check, applies)
        return check

    return enter


def cases() -> Iterator[tuple[str, Penalty]]:
    """Every example of every penalty of this package, with a readable name."""
    for entry in registered("penalty", "keras_penalties"):
        for number, penalty in enumerate(entry.obj.examples()):
            yield f"{entry.name}-{number}", penalty


def has_prox(p: Penalty) -> bool:
    return p.has_prox


def is_separable(p: Penalty) -> bool:
    return isinstance(p, Separable)


def tensor(x: Any, dtype: str = WIDE) -> Any:
    return ops.convert_to_tensor(x, dtype)


def array(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(x, WIDE)).astype("float64")


def value(p: Penalty, x: Any, dtype: str = WIDE) -> float:
    return float(array(p.value(tensor(x, dtype))))


def entries(p: Separable, x: Any) -> np.ndarray:
    return array(p.entrywise(tensor(x)))


def slope(p: Penalty, x: Any, dtype: str = WIDE) -> np.ndarray:
    return array(numerics.gradient(p.value, tensor(x, dtype)))


def prox(p: Penalty, x: Any, t: Any, dtype: str = WIDE) -> np.ndarray:
    return array(p.prox(tensor(x, dtype), tensor(t, dtype)))


def equal(received: Any, expected: Any, bound: float = ROUNDING) -> None:
    scale = np.max(np.abs(expected), initial=0.0)
    np.testing.assert_allclose(received, expected, rtol=bound, atol=bound * scale)
