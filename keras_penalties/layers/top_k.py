"""Activations that keep the largest entries: of each row, or of the whole batch."""

from __future__ import annotations

import math
from typing import Any, Self

from keras import ops

from keras_penalties import checks, compat
from keras_penalties.config import LayerFromSignature
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class TopK(LayerFromSignature):
    """Keeps the k largest entries of each row that are positive, and zeros the rest.

    `y_i = max(0, x_i)` where x_i is at least the k-th largest entry of its row, else 0.
    Entries that are equal to the k-th largest are all kept.

    Args:
        k: How many entries a row keeps, 1 or more, at most the number of units.

    Shapes: (batch, ..., units), unchanged.

    Example:
        >>> import keras, keras_penalties as kp
        >>> x = keras.ops.array([[3.0, 1.0, -2.0, 2.0]])
        >>> [float(y) for y in kp.layers.TopK(2)(x)[0]]
        [3.0, 0.0, 0.0, 2.0]

    Raises:
        ValueError: if `k` is not a whole number in that range.

    Source: Makhzani and Frey, "k-Sparse Autoencoders", 2014; Gao et al., "Scaling and
    Evaluating Sparse Autoencoders", 2024.
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = checks.integer("k", k)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Nothing but a check: there are no weights."""
        _check_count("k", self.k, input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """The input with zeros in all places except the k largest."""
        return at_least(inputs, kth_largest(inputs, self.k))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls(2), cls(1)]


@register
class BatchTopK(LayerFromSignature):
    """Keeps the k largest entries a row on average over the batch, if positive.

    In training `y_i = max(0, x_i)` where x_i is among the `k·rows` largest entries of
    the whole batch, else 0: a row that needs more units has more. In inference a row
    can't look at others, so `y_i = x_i` where `x_i > threshold`. The threshold is the
    running mean, over the batches in training, of the smallest entry that was kept.

    Args:
        k: How many entries a row keeps on average, above 0, at most the number of
            units. Need not be whole.
        momentum: Of the running mean, in [0, 1). Default 0.99.

    Shapes: (batch, ..., units), unchanged. All axes except the last one count as rows.

    Example:
        >>> import keras, keras_penalties as kp
        >>> layer = kp.layers.BatchTopK(1.0)
        >>> x = keras.ops.array([[3.0, 2.0], [1.0, 0.5]])
        >>> [[float(y) for y in row] for row in layer(x, training=True)]
        [[3.0, 2.0], [0.0, 0.0]]
        >>> [[float(y) for y in row] for row in layer(x + 0.5)]  # above 2.0
        [[3.5, 2.5], [0.0, 0.0]]

    Raises:
        ValueError: if an argument is out of range.

    Source: Bussmann, Leask and Nanda, "BatchTopK Sparse Autoencoders", 2024.
    """

    def __init__(self, k: float, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = checks.positive("k", k)
        self.momentum = checks.number("momentum", momentum, 0.0, 1.0, open_high=True)

    def build(self, input_shape: Any) -> None:
        """Create the running mean."""
        _check_count("k", self.k, input_shape)
        # The sum of the smallest entries, each by its weight, and the sum of weights.
        self.smallest = self.add_weight(
            shape=(2,),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="smallest",
        )
        self.built = True

    @property
    def threshold(self) -> Tensor:
        """What an entry must be above in inference; 0 before any training."""
        smallest = ops.convert_to_tensor(self.smallest)
        return ops.divide_no_nan(smallest[0], smallest[1])

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """The input with zeros in all places except those that are kept."""
        if not compat.in_training(training):
            threshold = ops.cast(self.threshold, inputs.dtype)
            return ops.where(inputs <= threshold, ops.zeros_like(inputs), inputs)
        entries = ops.reshape(inputs, (-1,))
        code = at_least(inputs, kth_largest(entries, self._count(inputs)))
        self._move(ops.cast(ops.stop_gradient(code), "float32"))
        return code

    def _count(self, x: Tensor) -> Any:
        rows = ops.shape(x)[:-1]
        if all(isinstance(n, int) for n in rows):
            return max(1, int(self.k * math.prod(rows)))
        count = ops.cast(ops.prod(ops.stack(rows)), "float32") * self.k
        # A batch that turns out to be empty has no entry to ask for.
        return ops.minimum(ops.cast(ops.maximum(count, 1.0), "int32"), ops.size(x))

    def _move(self, code: Tensor) -> None:
        if 0 in code.shape:
            return
        found = ops.min(ops.where(code > 0, code, math.inf))
        before = ops.convert_to_tensor(self.smallest)
        entry = ops.stack([found, ops.ones_like(found)])
        moved = self.momentum * before + (1.0 - self.momentum) * entry
        # A batch without a positive entry tells nothing.
        self.smallest.assign(ops.where(ops.isfinite(found), moved, before))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls(1.5), cls(0.5), cls(1.5, momentum=0.5)]


def kth_largest(x: Tensor, k: Any) -> Tensor:
    """The k-th largest entry of each row, with the last axis kept, of length 1.

    By the minimum of the k largest: with their last entry XLA on a CPU sorts all.
    """
    if 0 in x.shape:  # torch has no minimum of nothing
        return ops.zeros((*x.shape[:-1], 1), x.dtype)
    return ops.min(ops.top_k(x, k, sorted=False)[0], axis=-1, keepdims=True)


def at_least(x: Tensor, bound: Tensor) -> Tensor:
    """The positive entries that are not below a bound. What is no number stays none."""
    return ops.where(x < ops.stop_gradient(bound), ops.zeros_like(x), ops.relu(x))


def _check_count(argument: str, count: float, input_shape: Any) -> None:
    units = input_shape[-1]
    if units is None or count > units:
        checks.refuse(argument, f"at most the number of units, {units}", count)
