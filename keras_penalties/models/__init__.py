"""Ready models."""

import sys
from typing import TYPE_CHECKING

from keras_penalties.discovery import discover
from keras_penalties.models.dictionary import DictionaryAutoencoder
from keras_penalties.models.from_saelens import from_saelens

if TYPE_CHECKING:  # for editors: at run time every file of this folder is found
    from keras_penalties.models.penalized_codes import *
    from keras_penalties.models.ranked_codes import *
    from keras_penalties.models.sparse_autoencoder import *

_found = discover(sys.modules[__name__])
globals().update(_found)
__all__ = [*_found, "DictionaryAutoencoder", "from_saelens"]


def __dir__() -> list[str]:
    return sorted(__all__)
