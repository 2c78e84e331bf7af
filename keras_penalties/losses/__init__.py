"""Losses of `(y_true, y_pred)` that Keras lacks, under string names."""

import sys
from typing import TYPE_CHECKING, Any

from keras_penalties import expressions
from keras_penalties.discovery import discover
from keras_penalties.losses.base import Loss

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.losses.classification import *
    from keras_penalties.losses.contrastive import *
    from keras_penalties.losses.counts import *
    from keras_penalties.losses.crps import *
    from keras_penalties.losses.distillation import *
    from keras_penalties.losses.likelihood import *
    from keras_penalties.losses.ordinal import *
    from keras_penalties.losses.regression import *
    from keras_penalties.losses.squared import *
    from keras_penalties.losses.survival import *
    from keras_penalties.losses.tempered import *
    from keras_penalties.losses.weighted import *


def get(identifier: Any, argument: str = "identifier") -> Any:
    """A loss from a string, a config, a class, or a loss itself.

    Args:
        identifier: `"half_sum_squared_error"`, with arguments as in
            `"half_sum_squared_error(reduction='sum')"`, a Keras key, a config, a
            function `(y_true, y_pred)` or a `keras.losses.Loss`. Keras' own names
            work too.
        argument: The name of the caller's own argument, for its error messages.
            Default `"identifier"`.

    Raises:
        ValueError: for an unknown name, with those that come near.

    Example:
        >>> import keras_penalties as kp
        >>> kp.losses.get("half_sum_squared_error(reduction='sum')").reduction
        'sum'
    """
    return expressions.get(identifier, "loss", argument=argument)


_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = ["Loss", "get", *_found]


def __dir__() -> list[str]:
    return sorted(__all__)
