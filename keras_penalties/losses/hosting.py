"""Any Keras loss as one of this package, for a layer or a loss that hosts another."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import Loss
from keras_penalties.typing import Tensor


def hosted(loss: Any, ignore: float | str | None = None) -> Loss:
    """The loss, with the weights, masks and unknown targets of `Loss`.

    Args:
        loss: A `keras.losses.Loss`, or a function `(y_true, y_pred)`.
        ignore: As in `Loss`.

    Raises:
        ValueError: if the loss has another `ignore` of its own.
    """
    if not isinstance(loss, Loss):
        return _Hosted(loss, ignore)
    if ignore is None:
        return loss
    if loss.ignore is not None:
        checks.refuse("ignore", "None, since the loss itself has one", ignore)
    return type(loss).from_config({**loss.get_config(), "ignore": ignore})


class _Hosted(Loss):
    """A loss of Keras or a function, of which only the values are taken."""

    def __init__(self, loss: Any, ignore: float | str | None) -> None:
        function = not isinstance(loss, keras.losses.Loss)
        super().__init__(
            name=loss.__name__ if function else loss.name,
            reduction="sum_over_batch_size" if function else loss.reduction,
            dtype=None if function else loss.dtype,
            ignore=ignore,
        )
        self._function = loss if function else loss.call

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The other loss' values, with the mask that it gave them."""
        if keras.tree.is_nested(y_true) or keras.tree.is_nested(y_pred):
            return self._function(y_true, y_pred)
        # (batch,) beside (batch, 1) would broadcast to (batch, batch), and a mean over
        # the last axis of (batch,) would leave one value for all samples.
        if len(y_pred.shape) == 1:
            y_pred = ops.expand_dims(y_pred, -1)
        if len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        return self._function(y_true, y_pred)
