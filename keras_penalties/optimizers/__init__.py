"""Optimizers that apply penalties, by proximal maps or gradients, and hold zeros."""

import sys
from typing import TYPE_CHECKING

from keras_penalties.discovery import discover

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.optimizers.hold_zeros import *
    from keras_penalties.optimizers.penalizing import *
    from keras_penalties.optimizers.proximal import *

_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = [*_found]


def __dir__() -> list[str]:
    return sorted(__all__)
