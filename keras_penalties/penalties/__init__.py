"""Penalties: pure maths on one tensor, with a strength, a name and often a prox."""

import sys
from typing import TYPE_CHECKING, Any

from keras_penalties import expressions
from keras_penalties.discovery import discover
from keras_penalties.penalties.base import Penalty, Separable

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.penalties.activity import *
    from keras_penalties.penalties.balls import *
    from keras_penalties.penalties.base import *
    from keras_penalties.penalties.compose import *
    from keras_penalties.penalties.concave import *
    from keras_penalties.penalties.confidence import *
    from keras_penalties.penalties.exclusive import *
    from keras_penalties.penalties.grouped import *
    from keras_penalties.penalties.indicators import *
    from keras_penalties.penalties.order import *
    from keras_penalties.penalties.powers import *
    from keras_penalties.penalties.quadratic import *
    from keras_penalties.penalties.separable import *
    from keras_penalties.penalties.spectral import *
    from keras_penalties.penalties.structure import *


def get(identifier: Any, argument: str = "identifier") -> Penalty:
    """A penalty from a string, a config, a class, or a penalty itself.

    Args:
        identifier: `"l1"`, `"l1(0.001)"`, `"elastic_net(0.01, l1_ratio=0.3)"`,
            `"l1(0.1) + l2(0.01)"`, `"keras_penalties>L1"`, or a config. Arguments
            are literals or other penalties; nothing is evaluated.
        argument: The name of the caller's own argument, for its error messages.
            Default `"identifier"`.

    Raises:
        ValueError: for an unknown name, with those that come near; for a string
            that is no such expression; for what is not a penalty.

    Example:
        >>> import keras_penalties as kp
        >>> kp.get("elastic_net(0.01, l1_ratio=0.3)")
        ElasticNet(strength=0.01, l1_ratio=0.3)
    """
    found: Penalty = expressions.get(identifier, "penalty", Penalty, argument)
    return found


_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = ["Penalty", "Separable", "get", *_found]


def __dir__() -> list[str]:
    return sorted(__all__)
