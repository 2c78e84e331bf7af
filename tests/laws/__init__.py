"""The laws that every penalty, loss and layer obeys, each a function that raises.

`test_laws.py` runs them over every registered class, `test_the_tests.py` over classes
with a planted fault, which they must find.
"""

from laws import layers, losses, masks, missing, proxes, spread, usage, values
from laws.book import LAYER_LAWS, LOSS_LAWS, PENALTY_LAWS, cases, pairs

__all__ = [
    "LAYER_LAWS",
    "LOSS_LAWS",
    "PENALTY_LAWS",
    "cases",
    "layers",
    "losses",
    "masks",
    "missing",
    "pairs",
    "proxes",
    "spread",
    "usage",
    "values",
]
