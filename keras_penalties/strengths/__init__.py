"""Strengths: a constant, a schedule, or a number that training finds."""

import sys
from typing import TYPE_CHECKING

from keras_penalties.discovery import discover
from keras_penalties.strengths.base import (
    Host,
    Schedule,
    Strength,
    StrengthLike,
    as_strength,
    check_host,
    constant,
    kind_of,
)
from keras_penalties.strengths.schedules import Ramp

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.strengths.lazy import *
    from keras_penalties.strengths.learned import *
    from keras_penalties.strengths.schedules import *
    from keras_penalties.strengths.target import *

_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = [
    "Host",
    "Ramp",
    "Schedule",
    "Strength",
    "StrengthLike",
    "as_strength",
    "check_host",
    "constant",
    "kind_of",
    *_found,
]


def __dir__() -> list[str]:
    return sorted(__all__)
