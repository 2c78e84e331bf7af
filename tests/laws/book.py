"""What a law is, and what the laws are written with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from keras import ops
from strategies import WIDE

from keras_penalties import autodiff
from keras_penalties.penalties import Penalty, Separable
from keras_penalties.registry import Entry, registered

PRECISE = WIDE == "float64"
ROUNDING = 1e-10 if PRECISE else 1e-5
STEPS = (0.05, 0.5, 5.0)


class Law(NamedTuple):
    """A check, and the objects that it speaks of."""

    name: str
    check: Callable[[Any], None]
    applies: Callable[[Any], bool]


Book: TypeAlias = dict[str, Law]
PENALTY_LAWS: Book = {}
LOSS_LAWS: Book = {}
LAYER_LAWS: Book = {}
STRENGTH_LAWS: Book = {}
PRECONDITIONER_LAWS: Book = {}
METRIC_LAWS: Book = {}
CLASS_LAWS: Book = {}
BOOKS = (
    PENALTY_LAWS,
    LOSS_LAWS,
    LAYER_LAWS,
    STRENGTH_LAWS,
    PRECONDITIONER_LAWS,
    METRIC_LAWS,
    CLASS_LAWS,
)


def law(
    applies: Callable[[Any], bool] = lambda p: True, book: Book = PENALTY_LAWS
) -> Callable[..., Any]:
    """Enter a check into a book of laws, for all objects or for some."""

    def enter(check: Callable[[Any], None]) -> Callable[[Any], None]:
        name = check.__name__
        assert not any(name in other for other in BOOKS)
        book[name] = Law(name, check, applies)
        return check

    return enter


def cases(kind: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each example of each class of this package of a kind: a name, and its maker.

    A maker gives a new object each time, so that no law sees what another one did.
    """
    for entry in registered(kind, "keras_penalties"):
        yield from examples_of(entry.name, entry.obj)


def examples_of(name: str, cls: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A name and a maker for each example of a class."""
    for number in range(len(getattr(cls, "examples", list)())):
        yield f"{name}-{number}", functools.partial(_example, cls, number)


def _example(cls: Any, number: int) -> Any:
    return cls.examples()[number]


def pairs(book: Book, found: Iterable[tuple[str, Callable[[], Any]]]) -> list[Any]:
    """Each law with each maker that it speaks of, for `pytest.mark.parametrize`."""
    seen: set[tuple[str, type]] = set()
    chosen = []
    for case, make in found:
        example = make()
        cls = example if isinstance(example, type) else type(example)
        for law in (law for law in book.values() if law.applies(example)):
            # The first example of a class shows most faults. CI takes all of them.
            marks = pytest.mark.slow_on_tensorflow if (law.name, cls) in seen else ()
            seen.add((law.name, cls))
            name = f"{law.name}-{case}"
            chosen.append(pytest.param(law.check, make, id=name, marks=marks))
    return chosen


def has_prox(p: Penalty) -> bool:
    return p.has_prox


def by_gradient(p: Penalty) -> bool:
    return p.has_slope


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
    return array(autodiff.gradient(p.value, tensor(x, dtype)))


def prox(p: Penalty, x: Any, t: Any, dtype: str = WIDE) -> np.ndarray:
    return array(p.prox(tensor(x, dtype), tensor(t, dtype)))


def equal(received: Any, expected: Any, bound: float = ROUNDING) -> None:
    scale = np.max(np.abs(expected), initial=0.0)
    np.testing.assert_allclose(received, expected, rtol=bound, atol=bound * scale)


def entry_of(one: Any) -> Entry | None:
    """What the class of an object is registered as, if it is."""
    return next((e for e in registered() if e.obj is type(one)), None)


def stands_alone(one: Any) -> bool:
    """Whether the name alone, without arguments, makes such an object."""
    parameters = inspect.signature(type(one)).parameters.values()
    options = inspect.Parameter.VAR_KEYWORD
    required = [p for p in parameters if p.default is p.empty and p.kind != options]
    return entry_of(one) is not None and not required
