"""Layers that add penalties to the loss in `call`."""

import sys
from typing import TYPE_CHECKING

from keras_penalties.discovery import discover

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.layers.activity import *
    from keras_penalties.layers.adversarial import *
    from keras_penalties.layers.derivatives import *
    from keras_penalties.layers.endpoint import *
    from keras_penalties.layers.frozen import *
    from keras_penalties.layers.gradients import *
    from keras_penalties.layers.jacobians import *
    from keras_penalties.layers.model_penalty import *
    from keras_penalties.layers.penalized import *

_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = [*_found]


def __dir__() -> list[str]:
    return sorted(__all__)
