"""Arrays that a penalty is anchored to, which its host keeps as weights of its own.

A config is text: a million numbers in it would take 30 MB and many seconds. So the
config of an array of more than `LIMIT` numbers has its shape and its digest only, and
the numbers lie in the weights of the host: a layer or an optimizer, whoever applies the
penalty. Who keeps no weights, a Keras slot for one, refuses to write such a config.
"""

from __future__ import annotations

import functools
import hashlib
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import numpy as np

from keras_penalties import checks

LIMIT = 1000
"""The largest array, in numbers, that a config holds itself."""
START = "start"
"""The word for the penalised weight as it is before the first step of training."""

_WAY_OUT = (
    "Put the penalty in `keras_penalties.layers.Penalized`, or give it to "
    "`keras_penalties.optimizers.Penalizing` or `Proximal`: these keep the array "
    "among their weights"
)
_HOSTED: ContextVar[Callable[[Any], bool]] = ContextVar(
    "hosted", default=lambda owner: False
)
"""Whether somebody keeps the arrays of the penalty that is written as a config."""


class Anchor:
    """A large array, or one of which only its shape and its digest are known yet."""

    def __init__(self, shape: tuple[int, ...], digest: str | None = None) -> None:
        self.shape = shape
        self._digest = digest
        self.array: np.ndarray | None = None
        """The numbers. None where they lie in the weights of a host."""

    @classmethod
    def of(cls, array: np.ndarray) -> Anchor:
        """An array that the caller will not change."""
        anchor = cls(array.shape)
        anchor.array = array
        return anchor

    @functools.cached_property
    def digest(self) -> str:
        """Equal for equal numbers, as far as float32 tells them apart."""
        if self.array is None:
            return str(self._digest)
        numbers = np.ascontiguousarray(self.array, "float32")
        return hashlib.blake2b(numbers.tobytes(), digest_size=16).hexdigest()

    def numbers(self) -> np.ndarray:
        """The numbers.

        Raises:
            ValueError: if they lie in the weights of a host.
        """
        if self.array is None:
            raise ValueError(
                f"The array of shape {self.shape} lies in the weights of the layer or "
                "the optimizer that the penalty was saved with. Load these, or make "
                "the penalty anew with the array."
            )
        return self.array

    def config(self, owner: Any) -> dict[str, Any]:
        """What the config of the penalty has in place of the array.

        Raises:
            ValueError: if nobody keeps the array.
        """
        if not _HOSTED.get()(owner):
            _refuse_size(owner, self.shape)
        if self.array is not None:
            _ALIVE[self.digest, self.shape] = self
        return {"shape": list(self.shape), "digest": self.digest}

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Anchor)
            and self.shape == other.shape
            and self.digest == other.digest
        )

    def __hash__(self) -> int:
        return hash(self.shape)

    def __repr__(self) -> str:
        return f"<array of shape {self.shape}>"


def _refuse_size(owner: Any, shape: tuple[int, ...]) -> NoReturn:
    raise ValueError(
        f"{type(owner).__name__} has an array of shape {shape}, which is too large for "
        f"its config: a config holds {LIMIT:,} numbers at most. {_WAY_OUT}."
    )


_ALIVE: weakref.WeakValueDictionary[tuple[str, tuple[int, ...]], Anchor] = (
    weakref.WeakValueDictionary()
)
"""The arrays that were written as a config. An object that is made from the config in
the same process, as a clone is, has the numbers too."""


@contextmanager
def hosted(owners: Iterable[Any] | None = None) -> Iterator[None]:
    """Within it the configs of these penalties may leave out their arrays.

    Args:
        owners: The penalties whose arrays a host keeps. Default None: all, for a config
            that is only compared.
    """
    ids = None if owners is None else {id(owner) for owner in owners}
    token = _HOSTED.set(lambda owner: ids is None or id(owner) in ids)
    try:
        yield
    finally:
        _HOSTED.reset(token)


def anchored(argument: str, value: Any, low: float = -math.inf) -> Any:
    """An argument as a penalty keeps it: nested lists of floats, or an `Anchor`.

    Raises:
        ValueError: if the value is no array of finite numbers from `low` on.
    """
    if isinstance(value, Anchor):
        return value
    if isinstance(value, Mapping):
        return _from_config(argument, value)
    array = checks.array(argument, value, low=low)
    return array.tolist() if array.size <= LIMIT else Anchor.of(array)


def _from_config(argument: str, config: Mapping[str, Any]) -> Anchor:
    try:
        shape = tuple(checks.integer(argument, n, low=0) for n in config["shape"])
        digest = config["digest"]
    except (KeyError, TypeError):
        checks.refuse(argument, "an array, or what a config has for one", config)
    return _ALIVE.get((digest, shape)) or Anchor(shape, digest)


def starts(value: Any) -> bool:
    """Whether an argument is the word for the weight as training starts."""
    return isinstance(value, str) and value == START


def refuse_start(owner: Any) -> NoReturn:
    """Say who can keep what a penalty has to remember."""
    raise ValueError(
        f"{type(owner).__name__}(values='{START}') needs somebody who keeps the weight "
        f"as it was. {_WAY_OUT}."
    )
