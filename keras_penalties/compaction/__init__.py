"""Smaller models: units whose weights a group penalty made zero are removed."""

import sys

from keras_penalties.compaction.plan import Plan, compact
from keras_penalties.compaction.rules import follows
from keras_penalties.compaction.sparsity import Sparsity, sparsity
from keras_penalties.discovery import discover

discover(sys.modules[__name__])  # each file that registers rules for layers

__all__ = ["Plan", "Sparsity", "compact", "follows", "sparsity"]


def __dir__() -> list[str]:
    return sorted(__all__)
