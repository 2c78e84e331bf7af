"""Keras 3 objectives with more in them than `loss(y_true, y_pred)`.

objective = data loss + Σ strength × penalty(target)
"""

from keras_penalties import layers, losses, models, penalties
from keras_penalties.penalties import get
from keras_penalties.registry import register

__version__ = "0.1.0"
__all__ = ["get", "layers", "losses", "models", "penalties", "register"]
