"""What a loss of this package adds to `keras.losses.Loss`."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from keras_penalties import config
from keras_penalties.numerics import Tensor
from keras_penalties.registry import snake_case


class Loss(keras.losses.Loss):
    """A Keras loss whose whole state is its arguments, so that it reloads as it was.

    A subclass writes `call`, which returns one value per sample, and stores each
    argument under its own name.

    Args:
        name: For logs. Default: the string name of the class.
        reduction: As in `keras.losses.Loss`. Default `"sum_over_batch_size"`.
        dtype: In which to compute. Default `keras.config.floatx()`.
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        name = name or snake_case(type(self).__name__)
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Every argument, `dtype` included, which Keras leaves out."""
        return config.to_config(self)

    @classmethod
    def from_config(cls, config_: dict[str, Any]) -> Self:
        """The loss that `get_config` described."""
        loss: Self = config.from_config(cls, config_)
        return loss

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws, the docs and the listing run over."""
        return [cls()]


def aligned(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same shape and a last axis of features.

    Targets of shape (batch,) meet predictions of shape (batch, 1) and the other way
    round, as in Keras' own losses: else they would broadcast to (batch, batch).

    Raises:
        ValueError: if the shapes differ otherwise.
    """
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true_shape) + 1 == len(pred_shape) and pred_shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    elif len(pred_shape) + 1 == len(true_shape) and true_shape[-1] == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    if len(y_true.shape) == len(y_pred.shape) == 1:
        y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
    pairs = zip(y_true.shape, y_pred.shape, strict=False)
    same_rank = len(y_true.shape) == len(y_pred.shape)
    if not same_rank or any(a != b for a, b in pairs if None not in (a, b)):
        raise ValueError(
            "`y_true` and `y_pred` must have the same shape, but for a last axis of 1. "
            f"Received: y_true of shape {true_shape}, y_pred of shape {pred_shape}"
        )
    return y_true, y_pred
