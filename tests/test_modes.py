"""Every mode in which Keras trains, with every host: each shows the same numbers."""

import functools
import importlib.util
import json
import os
import sys

import keras
import modes
import numpy as np
import pytest
from conftest import BACKEND
from modes import HOSTS, MODES, PLAIN, RAMP

import keras_penalties as kp

QUICK = [("several steps", "outputs")]


@functools.cache
def plain(name):
    return modes.trained(HOSTS[name], PLAIN)[1]


def assert_same(found, right, bound):
    assert set(found) == set(right)
    for name in right:
        largest = np.max(np.abs(right[name]))
        np.testing.assert_allclose(
            found[name], right[name], atol=bound * largest, rtol=0, err_msg=name
        )


def assert_steps_are_counted(model, host, mode):
    """As `docs/strengths.md` says: a layer counts passes, an optimizer steps."""
    real_steps = modes.PASSES // (mode.accumulate or 1)
    steps = real_steps if host.in_optimizer else modes.PASSES
    expected = 0.1 + 0.08 * steps
    moving = [t for t in kp.terms(model) if t.term and t.term.given_strength is RAMP]
    for term in moving:
        assert term.strength == pytest.approx(expected, rel=1e-5), term.name
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert int(inner.iterations) == real_steps


@pytest.fixture
def fresh_compiler(monkeypatch):
    """On torch: a compiler that other models have not led to give up.

    What we can do wrong is seen in the trace and its gradient. To make machine code of
    the trace, as `torch.compile` does by default, takes minutes a model: one test does.
    """
    if BACKEND == "torch":
        import torch

        torch._dynamo.reset()
        quick = functools.partial(torch.compile, backend="aot_eager")
        monkeypatch.setattr(torch, "compile", quick)
    return monkeypatch


@pytest.mark.parametrize(
    ("mode", "host"),
    [
        pytest.param(mode, host, marks=[] if quick else [pytest.mark.slow])
        for mode in MODES
        for host in HOSTS
        for quick in [(mode, host) in QUICK]
    ],
)
def test_a_mode_gives_what_plain_steps_give(mode, host, fresh_compiler):
    name, mode, host = host, MODES[mode], HOSTS[host]
    if modes.refused_by_keras(mode):
        with pytest.raises(ValueError, match="steps_per_execution"):
            modes.trained(host, mode)
        return
    if host.drawn and modes.draws_differ(mode):
        pytest.skip("in this mode Keras itself draws other random numbers")
    try:
        model, found = modes.trained(host, mode)
    except TypeError as error:
        if not host.twin:
            raise
        with pytest.raises(type(error)):
            modes.trained(host.twin, mode)
        pytest.skip("in this mode the regularizers of Keras fail too")
    over = mode.accumulate
    right = plain(name) if over is None else modes.accumulated(host, over)
    assert_same(found, right, mode.bound * host.sensitivity)
    assert_steps_are_counted(model, host, mode)


SAVE = """
import json, sys, keras, modes
for name in ("weights", "proximal"):
    host = modes.HOSTS[name]
    model = host.model(modes.PLAIN)
    assert model.jit_compile is True
    model.save(f"{name}.keras")
    print("LOGS", json.dumps(modes.fitted(model, host)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="saved on JAX")
def test_a_model_saved_on_jax_is_trained_compiled(
    tmp_path, fresh_process, fresh_compiler
):
    """On JAX "auto" becomes True in the file: on torch, `torch.compile`."""
    printed = fresh_process(
        SAVE, KERAS_BACKEND="jax", PYTHONPATH=os.pathsep.join(sys.path)
    )
    logs = [line[5:] for line in printed.splitlines() if line.startswith("LOGS ")]
    fresh_compiler.undo()
    for name, line in zip(("weights", "proximal"), logs, strict=True):
        model = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert model.jit_compile is True
        assert_same(modes.fitted(model, HOSTS[name]), json.loads(line), 2e-6)
