"""Keras 3 objectives with more in them than `loss(y_true, y_pred)`.

objective = data loss + Σ strength × penalty(target)
"""

from keras_penalties import (
    callbacks,
    compaction,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    penalties,
    strengths,
)
from keras_penalties.activations import ActivationStream, activations
from keras_penalties.compaction import compact, sparsity
from keras_penalties.dictionary.figures import mmcs
from keras_penalties.dictionary.report import dictionary_report
from keras_penalties.explain.objective import objective
from keras_penalties.explain.summary import summary
from keras_penalties.fisher import fisher
from keras_penalties.paths.max_strength import max_strength
from keras_penalties.paths.run import path
from keras_penalties.penalize import penalize, strip
from keras_penalties.penalties import get
from keras_penalties.plots import plot_terms
from keras_penalties.registry import register
from keras_penalties.strengths import Target
from keras_penalties.terms import set_strength, terms

__version__ = "0.1.0"
__all__ = [
    "ActivationStream",
    "Target",
    "activations",
    "compact",
    "compaction",
    "callbacks",
    "dictionary_report",
    "fisher",
    "get",
    "layers",
    "losses",
    "max_strength",
    "metrics",
    "mmcs",
    "models",
    "objective",
    "optimizers",
    "path",
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


def __dir__() -> list[str]:
    return sorted(__all__)
