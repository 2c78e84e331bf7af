"""What a term penalises: a weight, an output, a derivative, or a loss's own value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from keras_penalties import compat
from keras_penalties.penalties.base import Penalty
from keras_penalties.typing import Tensor


@dataclass(frozen=True)
class TermTarget:
    """What a term penalises."""

    once: ClassVar[bool] = False
    """Whether the term counts once in a forward pass, however often its layer is
    called in the pass."""

    def path(self, owner: str) -> str:
        """Where the target lies, given the name of the layer that owns it."""
        return owner

    def measure(self, penalty: Penalty, x: Any) -> Tensor:
        """The penalty's value on `x`, without the strength."""
        raise NotImplementedError


@dataclass(frozen=True)
class WeightTarget(TermTarget):
    """A weight, by its address in the layer that owns it."""

    address: str
    once = True

    def path(self, owner: str) -> str:
        """The owner, if one is named, and the address."""
        return f"{owner}/{self.address}" if owner else self.address

    def measure(self, penalty: Penalty, x: Any) -> Tensor:
        """The penalty's value."""
        return penalty.value(x)


@dataclass(frozen=True)
class OutputTarget(TermTarget):
    """What a layer gives out: a tensor, or several."""

    def measure(self, penalty: Penalty, x: Any) -> Tensor:
        """An extensive sum divided by the number of samples, and a statistic as it is.

        What a mask hides has no part in either, and a sample that is hidden as a whole
        is not counted.
        """
        return sum(_output_value(penalty, tensor) for tensor in keras.tree.flatten(x))


@dataclass(frozen=True)
class InnerOutputTarget(OutputTarget):
    """What a layer inside a model gives out, by the layer's address."""

    address: str

    def path(self, owner: str) -> str:
        """The address."""
        return self.address


def _output_value(penalty: Penalty, x: Tensor) -> Tensor:
    mask = compat.keras_mask(x)
    if mask is None:
        value, count = penalty.value(x), ops.shape(x)[0]
    else:
        value, count = penalty.masked_value(x, mask), real_samples(mask)
    if penalty.statistic:
        return value
    return ops.divide_no_nan(value, ops.cast(count, value.dtype))


def real_samples(mask: Tensor) -> Tensor:
    """How many samples have an entry that the mask does not hide."""
    mask = ops.cast(mask, "bool")
    if len(mask.shape) > 1:
        mask = ops.any(mask, axis=tuple(range(1, len(mask.shape))))
    return ops.sum(ops.cast(mask, "int32"))


@dataclass(frozen=True)
class DerivativeTarget(OutputTarget):
    """A derivative of a layer's outputs with respect to its input."""

    def path(self, owner: str) -> str:
        """The layer's inputs."""
        return f"{owner}/inputs"


@dataclass(frozen=True)
class LossTarget(TermTarget):
    """A loss: what is penalised is the loss's value, which the host has computed."""

    def measure(self, penalty: Any, x: Any) -> Tensor:
        """`x`."""
        return x
