"""The laws that every penalty, loss and layer obeys, each a function that raises.

`test_laws.py` runs them over every registered class, `test_the_tests.py` over classes
with a planted fault, which they must find.
"""

from laws import proxes, usage, values
from laws.book import LAWS, Law, cases

__all__ = ["LAWS", "Law", "cases", "proxes", "usage", "values"]
