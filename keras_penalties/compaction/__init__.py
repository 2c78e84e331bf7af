"""Models that get smaller: what group penalties made zero is taken out."""

import sys

from keras_penalties.compaction.plan import Plan, compact
from keras_penalties.compaction.rules import follows
from keras_penalties.compaction.sparsity import Sparsity, sparsity
from keras_penalties.discovery import discover

discover(sys.modules[__name__])  # every file that says what a layer kind does

__all__ = ["Plan", "Sparsity", "compact", "follows", "sparsity"]
