"""How cost grows with the parameters, and with the number of terms."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest
from harness import Claim, interleaved, measured
from keras.layers import Dense
from steps import BACKEND, steps_of

import keras_penalties as kp
from keras_penalties import penalties

NONE, STRENGTH = "no penalty", 1e-5


def hosts():
    """A way to make a Dense layer by name: without a penalty, and with one."""
    l1 = penalties.L1(STRENGTH)
    return {
        NONE: Dense,
        "L1 in Penalized": lambda *a, **k: kp.layers.Penalized(
            Dense(*a, **k), weights={"kernel": l1}
        ),
        "L1 in slots": lambda *a, **k: Dense(*a, kernel_regularizer=l1, **k),
    }


def three_terms():
    """The same, with three terms on each layer."""
    kernel, bias = (
        penalties.L1(STRENGTH) + penalties.L2(STRENGTH),
        penalties.L2(STRENGTH),
    )
    weights = {"kernel": kernel, "bias": bias}
    slots = {"kernel_regularizer": kernel, "bias_regularizer": bias}
    return {
        NONE: Dense,
        "terms in Penalized": lambda *a: kp.layers.Penalized(Dense(*a), weights),
        "terms in slots": lambda *a: Dense(*a, **slots),
    }


def chain(dense, width, layers):
    model = keras.Sequential(
        [keras.Input((width,)), *(dense(width) for _ in range(layers))]
    )
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("exponent", range(4, 9))
def test_parameters(options, report, exponent):
    """One layer of so many parameters."""
    if exponent > options.exponent:
        pytest.skip(f"--exponent {exponent} asks for it")
    width = round(10 ** (exponent / 2))
    x = np.random.default_rng(0).random((32, width)).astype("float32")
    block = max(1, 20 // 10 ** max(0, exponent - 6))
    turns = {n: steps_of(chain(d, width, 1), x, x, block) for n, d in hosts().items()}
    rounds = min(options.rounds, 5 if exponent == 8 else 9)
    samples = interleaved(turns, rounds)
    samples = {n: [s / block for s in t] for n, t in samples.items()}
    claims = [Claim(n, NONE) for n in samples if n != NONE]
    report(measured(f"A step with 1e{exponent} parameters", samples, claims))


def test_terms(options, report):
    """Many small layers, three terms on each: all up to the first step, and a step."""
    x = np.random.default_rng(0).random((32, 16)).astype("float32")
    chain(Dense, 16, 2).train_on_batch(x, x)  # what only the first model waits for
    starts, turns = {}, {}
    for name, dense in three_terms().items():
        start = time.perf_counter()
        model = chain(dense, 16, options.terms // 3)
        model.train_on_batch(x, x)
        starts[name] = [time.perf_counter() - start]
        turns[name] = steps_of(model, x, x, options.block)
    samples = interleaved(turns, min(options.rounds, 9))
    samples = {n: [s / options.block for s in t] for n, t in samples.items()}
    names = [n for n in turns if n != NONE]
    bar = None if BACKEND == "torch" else 2.0
    title = f"{options.terms} terms"
    first = f"{title}, to the first step"
    report(measured(first, starts, [Claim(n, NONE, bar) for n in names]))
    report(measured(f"{title}, a step", samples, [Claim(n, NONE) for n in names]))
