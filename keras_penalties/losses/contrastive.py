"""Losses that make embeddings of the same class or sample similar, within a batch."""

from __future__ import annotations

from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import BatchLoss, LossOptions
from keras_penalties.losses.shapes import agree, refuse_shapes
from keras_penalties.numerics import norm
from keras_penalties.registry import register
from keras_penalties.typing import Tensor

_SHORTEST = 1e-30
"""A shorter row has the gradient of a row of this length."""


class _Contrastive(BatchLoss):
    """A loss of cosine similarities s over the temperature, between all rows."""

    exact_targets = True

    def __init__(self, temperature: float = 0.1, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.temperature = checks.positive("temperature", temperature)

    def _pairs(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, batch): similarities, which rows are positives, which negatives."""
        true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
        if len(true_shape) == 2 and true_shape[1] == 1:
            y_true = ops.squeeze(y_true, 1)
        if len(pred_shape) != 2 or not agree(y_true.shape, pred_shape[:1]):
            wanted = "y_true (batch,) and y_pred (batch, width)"
            refuse_shapes(wanted, true_shape, pred_shape)
        unit = _unit(y_pred)
        similarity = ops.matmul(unit, ops.transpose(unit)) / self.temperature
        same = ops.expand_dims(y_true, 0) == ops.expand_dims(y_true, 1)
        row = ops.arange(ops.shape(y_pred)[0])
        other = ops.expand_dims(row, 0) != ops.expand_dims(row, 1)
        positive, negative = ops.logical_and(same, other), ops.logical_not(same)
        if present is not None:
            positive = ops.logical_and(positive, present)
            negative = ops.logical_and(negative, present)
        return similarity, positive, negative

    @classmethod
    def examples(cls) -> list[Self]:
        """The usual temperature, and a warm one."""
        return [cls(), cls(temperature=0.5)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two classes in turn, and embeddings of width three."""
        return np.arange(batch) % 2, rng.normal(size=(batch, 3))


def _unit(rows: Tensor) -> Tensor:
    """Each row over its length, and a row of zeros as it is.

    The length is that of the row over its largest entry: squares of lengths below 1e-19
    are 0 in float32. The slope, one over the length, is held where it would overflow.
    """
    largest = ops.stop_gradient(ops.max(ops.abs(rows), axis=-1, keepdims=True))
    largest = ops.where(largest > 0, largest, ops.ones_like(largest))
    still = ops.stop_gradient(rows)
    scaled = still / largest + (rows - still) / ops.maximum(largest, _SHORTEST)
    length = norm(scaled, axis=-1, keepdims=True)
    return scaled / ops.where(length > 0, length, ops.ones_like(length))


def _mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """The mean of each row's values in the mask, 0 where there are none."""
    kept = ops.where(mask, values, ops.zeros_like(values))
    count = ops.sum(ops.cast(mask, values.dtype), axis=1)
    return ops.sum(kept, axis=1) / ops.where(count > 0, count, ops.ones_like(count))


def _log_sum_exp(mask: Tensor, logits: Tensor) -> Tensor:
    """`log Σ exp` of each row's logits in the mask; very low where there are none."""
    lowest = -1e9 * ops.ones_like(logits)
    masked = ops.where(mask, logits, lowest)
    return ops.logsumexp(masked, axis=1, keepdims=True)


@register
class NTXent(_Contrastive):
    """A softmax loss that separates each row's partner from all rows of other pairs.

    For a row i and its positive p: `log(1 + Σ_n exp(s_in − s_ip))` over the negatives
    n: the rows of other ids. s is the cosine similarity over the temperature; SimCLR's
    loss of two views of each sample. With several positives, the mean over them, each
    beside the negatives alone.

    A statistic of the batch: two half batches do not add up to the whole. A row without
    a positive in the batch costs 0, and still counts in the mean and as a negative. A
    row that is masked, unknown or has the weight 0 is absent, as if it were not there.

    Args:
        temperature: Above 0. Default 0.1.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, an integer id for each row, equal for what belongs together, of
    shape (batch,) or (batch, 1), compared exactly. `y_pred`, embeddings of any length,
    (batch, width). The result is (batch,). A row shorter than 1e-30 has the gradient of
    one of that length.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.NTXent(temperature=1.0)
        >>> views = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(float(loss(np.array([7, 7, 8, 8]), views)), 4)
        0.5514

    Raises:
        ValueError: if `temperature` isn't above 0, or the shapes are others.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", 2020.
    """

    def call(self, y_true: Tensor, y_pred: Tensor, present: Tensor = None) -> Tensor:
        """One value per sample."""
        similarity, positive, negative = self._pairs(y_true, y_pred, present)
        rivals = _log_sum_exp(negative, similarity)
        return _mean_over(positive, ops.softplus(rivals - similarity))


@register
class SupervisedContrastive(_Contrastive):
    """Each row is drawn to all rows of its class, by softmax over the whole batch.

    `mean_p [log Σ_{a ≠ i} exp(s_ia) − s_ip]` over the positives p of row i: the other
    rows of its class. s is the cosine similarity over the temperature. With one
    positive each it is `NTXent`.

    A statistic of the batch: two half batches do not add up to the whole. A row without
    a positive in the batch costs 0, and still counts in the mean and as a negative. A
    row that is masked, unknown or has the weight 0 is absent, as if it were not there.

    Args:
        temperature: Above 0. Default 0.1.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, an integer label for each row, of shape (batch,) or (batch, 1),
    compared exactly. `y_pred`, embeddings of any length, (batch, width). The result is
    (batch,). A row shorter than 1e-30 has the gradient of one of that length.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.SupervisedContrastive(temperature=1.0)
        >>> rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(float(loss(np.array([0, 0, 1, 1]), rows)), 4)
        0.5514

    Raises:
        ValueError: if `temperature` isn't above 0, or the shapes are others.

    Source: Khosla et al., "Supervised Contrastive Learning", 2020, the form with the
    sum outside the log.
    """

    def call(self, y_true: Tensor, y_pred: Tensor, present: Tensor = None) -> Tensor:
        """One value per sample."""
        similarity, positive, negative = self._pairs(y_true, y_pred, present)
        others = _log_sum_exp(ops.logical_or(positive, negative), similarity)
        return _mean_over(positive, others - similarity)
