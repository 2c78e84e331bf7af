"""Keras 3 objectives with more in them than `loss(y_true, y_pred)`.

objective = data loss + Σ strength × penalty(target)
"""

from keras_penalties import (
    callbacks,
    compaction,
    layers,
    losses,
    models,
    optimizers,
    penalties,
    strengths,
)
from keras_penalties.compaction import compact, sparsity
from keras_penalties.explain.objective import objective
from keras_penalties.explain.summary import summary
from keras_penalties.fisher import fisher
from keras_penalties.penalize import penalize, strip
from keras_penalties.penalties import get
from keras_penalties.plots import plot_terms
from keras_penalties.registry import register
from keras_penalties.strengths import Target
from keras_penalties.terms import set_strength, terms

__version__ = "0.1.0"
__all__ = [
    "Target",
    "compact",
    "compaction",
    "callbacks",
    "fisher",
    "get",
    "layers",
    "losses",
    "models",
    "objective",
    "optimizers",
    "penalties",
    "penalize",
    "plot_terms",
    "register",
    "set_strength",
    "sparsity",
    "strengths",
    "strip",
    "summary",
    "terms",
]
