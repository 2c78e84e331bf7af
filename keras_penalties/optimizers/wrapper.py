"""An optimizer around another one, which keeps the rate, the count and the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import compat, config
from keras_penalties.typing import Tensor


class Wrapper(keras.optimizers.Optimizer):
    """Passes everything that Keras asks of an optimizer to the inner optimizer.

    Keras' precedent is `LossScaleOptimizer`.
    """

    def __init__(self, inner: Any, name: str | None = None) -> None:
        # This learning rate is never used, as in LossScaleOptimizer.
        super().__init__(learning_rate=0.0, name=name)
        self.inner = keras.optimizers.get(inner)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the inner optimizer's state."""
        self.inner.build(variables)
        super().build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One step of the inner optimizer, by the gradients of `_passed_on`."""
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                self.build(trainable_variables)
        variables = trainable_variables or self._trainable_variables
        self.inner.apply(self._passed_on(grads, variables), trainable_variables)

    def _passed_on(self, gradients: Any, variables: Sequence[Any]) -> Any:
        """The gradients that the inner optimizer gets: by default those of the loss."""
        return gradients

    @property
    def variables(self) -> list[Any]:
        """Its own variables, then the inner optimizer's variables."""
        return [*super().variables, *self.inner.variables]

    @property
    def inner_optimizer(self) -> Any:
        """The inner optimizer, under the name where Keras' callbacks look for it."""
        return self.inner

    @property
    def iterations(self) -> Any:
        """The inner optimizer's count of steps."""
        return self.inner.iterations

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's learning rate, which may be set."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> Any:
        """The inner optimizer's; `LossScaleOptimizer` sets it to None."""
        return self.inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: Any) -> None:
        if hasattr(self, "inner"):  # Keras' own `__init__` sets it first
            self.inner.loss_scale_factor = factor

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss times the inner optimizer's `loss_scale_factor`."""
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Put the moving averages in the weights, if the inner optimizer keeps them."""
        self.inner.finalize_variable_values(var_list)

    def exclude_from_weight_decay(
        self, var_list: Any = None, var_names: Any = None
    ) -> None:
        """As the inner optimizer's."""
        self.inner.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all of `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def get_config(self) -> dict[str, Any]:
        """The inner optimizer and the name."""
        inner = keras.saving.serialize_keras_object(self.inner)
        return {"inner": compat.portable_optimizer(inner), "name": self.name}

    @classmethod
    def from_config(cls, config_: dict[str, Any], custom_objects: Any = None) -> Self:
        """The optimizer that `get_config` described."""
        with keras.saving.custom_object_scope(custom_objects or {}):
            optimizer: Self = config.from_config(cls, config_)
        return optimizer


def assign_with_zeros(optimizer: Any, variable: Any, new: Tensor) -> None:
    """Assign a weight in its optimizer's update, with the zeros of its average."""
    optimizer.assign(variable, ops.cast(new, variable.dtype))
    if optimizer.use_ema:
        average = compat.optimizer_state(
            optimizer, "_model_variables_moving_average", variable
        )
        optimizer.assign(average, ops.cast(new != 0, average.dtype) * average)
