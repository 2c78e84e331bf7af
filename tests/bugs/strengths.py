"""Strengths with one fault each."""

from __future__ import annotations

from keras import ops

from bugs.plant import caught_by
from keras_penalties.strengths import LinearRamp, Target


@caught_by("a_strength_reloads_as_it_was", 3.0, damping=0.0)
class LosesItsDamping(Target):
    def get_config(self):
        config = super().get_config()
        return {name: config[name] for name in config if name != "damping"}


@caught_by("a_schedule_is_followed_step_by_step", 0.0, 1.0, 10)
class CountsItsOwnCalls(LinearRamp):
    """In Python, where a compiled step asks once, and for all objects together."""

    calls = 0

    def __call__(self, step):
        CountsItsOwnCalls.calls += 1
        return super().__call__(CountsItsOwnCalls.calls - 1)


@caught_by("a_strength_goes_on_after_it_was_saved", 0.1, rate=0.5)
class ReloadsWithTheUsualRate(Target):
    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "rate": 0.01})


@caught_by(
    "a_target_rises_where_its_measure_is_too_large",
    -0.5,
    of="mean",
    initial=0.1,
    relative=True,
)
class DividesByItsValue(Target):
    """In place of the size of it: below 0 the multiplier goes the wrong way."""

    def _moved(self, multiplier, change):
        if self.relative:
            share = change / self.value
            return multiplier * ops.exp(ops.clip(share, -1.0, 1.0))
        return super()._moved(multiplier, change)
