"""Layers with one fault each."""

from __future__ import annotations

import keras
from keras import ops

import keras_penalties as kp
from bugs.plant import caught_by
from keras_penalties.layers import ActivityPenalty
from keras_penalties.penalties import L1, L2

HALF = "l1(0.5)"


@caught_by("a_layer_reloads_from_its_config", HALF)
class LosesItsMomentum(ActivityPenalty):
    def get_config(self):
        config = super().get_config()
        return {name: config[name] for name in config if name != "momentum"}


@caught_by("a_layer_reloads_from_its_config", HALF)
class ReloadsWithAnotherPenalty(ActivityPenalty):
    @classmethod
    def from_config(cls, config):
        return cls("l1(0.1)", name=config["name"])

    def get_config(self):
        return {**super().get_config(), "penalty": HALF}


@caught_by("an_empty_batch_adds_nothing", HALF)
class AddsAMean(ActivityPenalty):
    def call(self, inputs, training=None):
        self.add_loss(ops.sum(inputs) / ops.sum(ops.ones_like(inputs)))
        return super().call(inputs, training=training)


@caught_by("a_layer_computes_its_output_shape_before_any_call", HALF)
class KnowsNoBatch(ActivityPenalty):
    def compute_output_shape(self, input_shape):
        return (input_shape[0] or 1, *input_shape[1:])


@caught_by("a_mask_goes_on_as_without_the_layer", HALF)
class DropsTheMask(ActivityPenalty):
    def call(self, inputs, training=None):
        return 1.0 * super().call(inputs, training=training)

    def compute_mask(self, inputs, mask=None):
        return None


@caught_by("a_mask_goes_on_as_without_the_layer", HALF)
class InvertsTheMask(ActivityPenalty):
    def call(self, inputs, training=None):
        return 1.0 * super().call(inputs, training=training)

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else ops.logical_not(mask)


@caught_by("a_layer_gives_out_its_compute_dtype", HALF)
class GivesOutFullPrecision(ActivityPenalty):
    def call(self, inputs, training=None):
        return ops.cast(super().call(inputs, training=training), "float32")


@caught_by("a_layer_trains_and_is_saved_in_a_model", HALF)
class CountsInPython(ActivityPenalty):
    """Its state is no weight, so no file has it."""

    seen = 0

    def call(self, inputs, training=None):
        self.seen += 1 if training else 0
        return (1.0 + self.seen) * super().call(inputs, training=training)


@caught_by("an_evaluation_moves_nothing", L1(kp.Target(0.1)))
class MovesInEvaluation(ActivityPenalty):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class AsAnother(keras.metrics.Metric):
    """What one metric shows, under the name of another."""

    def __init__(self, shown, named):
        super().__init__(name=named.name)
        self.result, self.reset_state = shown.result, shown.reset_state

    def update_state(self, *args, **kwargs):
        pass


MOVING = [L1(kp.strengths.LinearRamp(1.0, 2.0, 10)), L2(kp.Target(0.1))]


@caught_by("the_logs_are_those_of_the_terms", kp.penalties.Sum(MOVING))
class LogsEachStrengthAsTheOther(ActivityPenalty):
    @property
    def metrics(self):
        found = super().metrics
        one, other = (m for m in found if m.name.endswith("_strength"))
        rest = [m for m in found if m not in (one, other)]
        return [*rest, AsAnother(one, other), AsAnother(other, one)]


@caught_by("the_logs_are_those_of_the_terms", "l1(0.5) + l2(0.5)")
class LogsATermTwice(ActivityPenalty):
    @property
    def metrics(self):
        one, other = super().metrics
        return [one, AsAnother(one, other)]
