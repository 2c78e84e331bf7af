"""The loss of a compiled model on one batch, as a pure function of its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_penalties.datasets import Batch
from keras_penalties.numerics import parted
from keras_penalties.typing import Tensor

State: TypeAlias = list[Tensor]
"""The values of the weights that are not trained, and of the random generators."""


def batch_loss(model: Any) -> Callable[[Tensor, State, Batch], Tensor]:
    """`(vector, state, batch) → loss` in an evaluation, which leaves the model alone.

    The loss is what `compile` was given, and all that the layers add to it, such as
    penalties; what an optimizer penalises is not in it. The vector is `joined` of the
    trained weights.
    """

    def loss(vector: Tensor, state: State, batch: Batch) -> Tensor:
        x, y, sample_weight = batch
        weights = model.trainable_variables
        moved = zip(weights, parted(vector, weights), strict=True)
        still = zip(model.non_trainable_variables, state, strict=True)
        with keras.StatelessScope([*moved, *still], collect_losses=True):
            predicted = model(x, training=False)
            found = model.compute_loss(x, y, predicted, sample_weight)
        return ops.cast(found, vector.dtype)

    return loss


def state_of(model: Any) -> State:
    """What `batch_loss` takes for the model as it is."""
    return [ops.convert_to_tensor(v) for v in model.non_trainable_variables]
