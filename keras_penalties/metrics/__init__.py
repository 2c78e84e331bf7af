"""Keras metrics of sparse codes and reconstructions, under string names."""

import sys
from typing import TYPE_CHECKING

from keras_penalties.discovery import discover
from keras_penalties.metrics.base import CodeMetric, Metric

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.metrics.sparsity import *
    from keras_penalties.metrics.variance import *

_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = ["CodeMetric", "Metric", *_found]


def __dir__() -> list[str]:
    return sorted(__all__)
