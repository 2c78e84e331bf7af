"""The laws find every planted fault: a law that nothing breaks proves nothing."""

import pytest
from laws import LAYER_LAWS, LOSS_LAWS, PENALTY_LAWS
from planted_bugs import LAYER_BUGS, LOSS_BUGS, PENALTY_BUGS

CAUGHT = (
    AssertionError,
    pytest.fail.Exception,
    RuntimeError,
    TypeError,
    ValueError,
)
BUGS = [
    pytest.param(book[bug.law], bug.faulty, id=type(bug.faulty).__name__)
    for book, bugs in (
        (PENALTY_LAWS, PENALTY_BUGS),
        (LOSS_LAWS, LOSS_BUGS),
        (LAYER_LAWS, LAYER_BUGS),
    )
    for bug in bugs
]


@pytest.mark.parametrize(("law", "faulty"), BUGS)
def test_a_planted_bug_is_caught(law, faulty):
    assert law.applies(faulty)
    with pytest.raises(CAUGHT):
        law.check(faulty)


@pytest.mark.parametrize(("law", "faulty"), BUGS)
def test_the_same_without_the_fault_passes(law, faulty):
    """So the law speaks of the fault, and of nothing else in the class."""
    sound = type(faulty).__bases__[0]
    sound = sound.from_config(sound.get_config(faulty))
    if law.applies(sound):
        law.check(sound)


def test_the_bugs_are_many_and_spread():
    assert len(PENALTY_BUGS) >= 20
    unproved = set(PENALTY_LAWS) - {bug.law for bug in PENALTY_BUGS}
    # The base class and the registry see to these, and no subclass can break them.
    assert unproved == {
        "a_smaller_rank_is_refused",
        "a_mask_that_does_not_fit_is_refused",
        "names_lead_to_the_penalty",
    }
