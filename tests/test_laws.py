"""The laws over every registered class, so over a new file of the package too."""

import pytest
from laws import LAWS, cases

CASES = dict(cases())
PAIRS = [
    pytest.param(law.check, penalty, id=f"{name}-{case}")
    for name, law in LAWS.items()
    for case, penalty in CASES.items()
    if law.applies(penalty)
]


@pytest.mark.parametrize(("check", "penalty"), PAIRS)
def test_penalty(check, penalty):
    check(penalty)
