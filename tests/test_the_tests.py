"""The laws find every planted fault: a law that nothing breaks proves nothing."""

import traceback

import planted_bugs  # noqa: F401
import pytest
from bugs.plant import BUGS
from laws.book import BOOKS

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]

EACH = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
CHECKERS = ("laws.", "numpy.testing.", "_pytest.", "contextlib")
"""Where an assertion may be raised from: a law, or a checker that a law calls."""
UNBREAKABLE = {
    # The base class and the registry see to these, and no subclass can break them.
    "a_smaller_rank_is_refused",
    "no_entries_cost_nothing",
    "a_mask_that_does_not_fit_is_refused",
    "names_lead_to_the_penalty",
    "a_loss_answers_to_its_names",
}


def raised_by(law, error):
    """Whether the error is an assertion of this law, and of nothing that it calls."""
    if isinstance(error, pytest.fail.Exception) and "DID NOT RAISE" not in str(error):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    codes = [frame.f_code for frame in frames]
    if law.check.__code__ not in codes:
        return False
    inner = frames[codes.index(law.check.__code__) :]
    return all(f.f_globals["__name__"].startswith(CHECKERS) for f in inner)


@EACH
def test_a_planted_bug_is_caught(bug):
    faulty = bug.faulty()
    assert bug.law.applies(faulty)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        bug.law.check(faulty)
    assert raised_by(bug.law, caught.value), caught.getrepr(style="short")


@EACH
def test_the_same_without_the_fault_passes(bug):
    """So the law speaks of the fault, and of nothing else in the class."""
    sound = bug.sound()
    if bug.law.applies(sound):
        bug.law.check(sound)


def test_every_law_has_a_bug():
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names)
    unproved = {law for book in BOOKS for law in book} - {b.law.name for b in BUGS}
    assert unproved == UNBREAKABLE
