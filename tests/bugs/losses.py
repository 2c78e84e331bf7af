"""Losses with one fault each."""

from __future__ import annotations

import keras
from keras import ops

from bugs.plant import caught_by
from keras_penalties import numerics
from keras_penalties.losses import (
    EnsembleCRPS,
    HalfSumSquaredError,
    LaplaceNLL,
    Pinball,
    SupervisedContrastive,
)
from keras_penalties.registry import register


def slope_only(residual):
    """0 everywhere, with slope 1 where the residual is 0: as |x| on JAX has it."""
    steep = ops.where(residual >= 0, residual, -residual)
    return ops.mean(steep - numerics.absolute(residual), axis=-1)


@caught_by("a_loss_has_a_finite_slope_everywhere")
class RootOfASumOfZeros(HalfSumSquaredError):
    def call(self, y_true, y_pred):
        return ops.sqrt(ops.sum(ops.square(y_true - y_pred), axis=-1))


@caught_by("an_empty_batch_costs_nothing")
class MeanOfNothing(HalfSumSquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        total = super().__call__(y_true, y_pred, sample_weight)
        return total / ops.mean(ops.ones(y_pred.shape[:1])) if self.reduction else total


@caught_by("a_loss_of_huge_numbers_is_never_nan")
class ExpandsTheSquare(HalfSumSquaredError):
    def call(self, y_true, y_pred):
        squares = ops.square(y_true) + ops.square(y_pred)
        return ops.sum(0.5 * squares - y_true * y_pred, axis=-1)


@caught_by("the_slope_at_a_kink_lies_between_those_beside_it")
class SteeperThanBothSides(Pinball):
    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) + slope_only(y_true - y_pred)


@caught_by("the_slope_at_a_kink_is_the_subgradient_of_least_norm")
class SlopeOfOneSide(Pinball):
    """A subgradient, but another one than on the other backends."""

    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) + 0.5 * slope_only(y_true - y_pred)


if keras.backend.backend() == "jax":  # the others have slope 0 there

    @caught_by("the_slope_at_a_kink_is_the_subgradient_of_least_norm")
    class PlainAbsoluteValue(LaplaceNLL):
        def call(self, y_true, y_pred):
            median, log_scale = ops.split(y_pred, 2, axis=-1)
            z = (y_true - median) * ops.exp(-log_scale)
            return ops.mean(log_scale + ops.absolute(z), axis=-1)


@caught_by("the_slope_at_a_kink_of_an_ensemble_is_the_middle")
class FirstMemberHasASide(EnsembleCRPS):
    def call(self, y_true, y_pred):
        first = y_pred[..., : y_true.shape[-1]]
        return super().call(y_true, y_pred) + slope_only(y_true - first)


@caught_by("large_labels_are_told_apart")
class MakesFloatsOfUnsignedLabels(SupervisedContrastive):
    def as_target(self, y_true, dtype):
        if str(y_true.dtype).endswith("uint32"):  # torch makes int64 of it
            return ops.cast(y_true, dtype)
        return super().as_target(y_true, dtype)


@caught_by("a_loss_compiles_by_its_name")
@register(package="bugs")
class CountsItsCalls(HalfSumSquaredError):
    """A loss has no state: Keras makes another object of its name."""

    calls = 0

    def call(self, y_true, y_pred):
        CountsItsCalls.calls += 1
        return CountsItsCalls.calls * super().call(y_true, y_pred)
