"""The laws that every class of the package obeys, each a function that raises.

`test_laws.py` runs them over every registered class, `test_the_tests.py` over classes
with a planted fault, which they must find.
"""

from laws import (
    classes,
    layers,
    losses,
    masks,
    metrics,
    missing,
    preconditioners,
    proxes,
    spread,
    strengths,
    usage,
    values,
)
from laws.book import (
    CLASS_LAWS,
    LAYER_LAWS,
    LOSS_LAWS,
    METRIC_LAWS,
    PENALTY_LAWS,
    PRECONDITIONER_LAWS,
    STRENGTH_LAWS,
    cases,
    pairs,
)

__all__ = [
    "CLASS_LAWS",
    "LAYER_LAWS",
    "LOSS_LAWS",
    "METRIC_LAWS",
    "PENALTY_LAWS",
    "PRECONDITIONER_LAWS",
    "STRENGTH_LAWS",
    "cases",
    "classes",
    "layers",
    "losses",
    "masks",
    "metrics",
    "missing",
    "pairs",
    "preconditioners",
    "proxes",
    "spread",
    "strengths",
    "usage",
    "values",
]
