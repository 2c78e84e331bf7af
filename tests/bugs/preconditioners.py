"""Preconditioners with one fault each."""

from __future__ import annotations

import keras
from keras import ops

from bugs.plant import caught_by
from keras_penalties.numerics import widened
from keras_penalties.optimizers.preconditioners import Adam


def of_amsgrad(rate):
    return keras.optimizers.Adam(rate, beta_1=0.0, epsilon=1e-3, amsgrad=True)


@caught_by("the_last_gradient_alone_moves_a_weight_by_the_metric", of_amsgrad)
class ReadsTheVelocityUnderAmsgrad(Adam):
    """A constant gradient can't show it: there v is its own maximum."""

    def _state(self, name, variable):
        return super()._state("_velocities", variable)


@caught_by("a_constant_gradient_moves_a_weight_by_the_metric", of_amsgrad)
class ForgetsTheBiasCorrection(Adam):
    def step_size(self, variable, learning_rate, before):
        v = self._state("_velocity_hats", variable)
        return learning_rate / (ops.sqrt(widened(v)) + self.optimizer.epsilon)
