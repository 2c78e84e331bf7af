"""`penalize` and `strip`: right on the models that people have."""

import existing_models
import keras
import numpy as np
import pytest
from existing_models import numbers
from keras import layers
from penalized_proof import array, check, check_reload, loss_of, total

import keras_penalties as kp

DONE = {}
"""The penalised models, for the test that reloads them all in one fresh process."""


@pytest.mark.filterwarnings("ignore:Terms do not act")
@pytest.mark.parametrize("build", existing_models.FAST, ids=lambda f: f.__name__)
def test_total_step_and_names(build):
    case = build()
    tolerance = 2e-2 if build is existing_models.mixed else 1e-5
    DONE[build.__name__] = (check(case, tolerance), case.x, case.y)
    terms = kp.terms(DONE[build.__name__][0])
    assert sum(t.acts for t in terms) == len(case.squares)
    assert len(terms) == len(case.squares) + len(case.frozen)


@pytest.mark.filterwarnings("ignore:Terms do not act")
def test_all_of_them_reload_in_a_fresh_process(tmp_path, fresh_process):
    assert len(DONE) == len(existing_models.FAST), "runs after the tests above"
    check_reload(DONE, tmp_path, fresh_process)
