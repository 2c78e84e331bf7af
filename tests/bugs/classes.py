"""Classes that forget an argument, or whose examples do."""

from __future__ import annotations

from bugs.plant import caught_by
from keras_penalties.layers import HessianTrace, VirtualAdversarial
from keras_penalties.penalties import MCP


@caught_by("every_argument_is_varied_by_the_examples")
class HasOneExample(MCP):
    @classmethod
    def examples(cls):
        return [cls(0.5)]


@caught_by("the_defaults_are_those_of_the_docs")
class HasAnotherDefault(MCP):
    def __init__(self, strength=0.01, width=2.0):
        super().__init__(strength, width)


@caught_by("every_argument_has_an_effect")
class ForgetsItsWidth(MCP):
    def __init__(self, strength=0.01, width=1.0):
        super().__init__(strength)


@caught_by("every_argument_has_an_effect")
class ForgetsItsProbes(HessianTrace):
    def derivative(self, fn, inputs, outputs):
        exact = HessianTrace(self.layer, self.penalty)
        return exact.derivative(fn, inputs, outputs)


@caught_by("every_argument_has_an_effect")
class ForgetsItsStep(VirtualAdversarial):
    def derivative(self, fn, inputs, outputs):
        usual = VirtualAdversarial(self.layer, radius=self.radius)
        usual.seed_generator = self.seed_generator
        return usual.derivative(fn, inputs, outputs)
