"""How cost grows with the parameters, and with the number of terms."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
from harness import Claim, interleaved, measured
from keras.layers import Dense
from steps import BACKEND, steps_of

import keras_penalties as kp
from keras_penalties import penalties

NONE, STRENGTH = "no penalty", 1e-5
KERAS = "Keras' own"


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


def with_terms(number):
    """The same with one term or three on each layer, and with the terms of Keras."""
    l1, l2 = penalties.L1(STRENGTH), penalties.L2(STRENGTH)
    weights, rivals = {"kernel": l1}, {"kernel": keras.regularizers.L1(STRENGTH)}
    if number == 3:
        weights = {"kernel": l1 + l2, "bias": l2}
        rivals = {
            "kernel": keras.regularizers.L1L2(STRENGTH, STRENGTH),
            "bias": keras.regularizers.L2(STRENGTH),
        }
    slots, keras_slots = (
        {f"{weight}_regularizer": penalty for weight, penalty in given.items()}
        for given in (weights, rivals)
    )
    return {
        NONE: Dense,
        "terms in Penalized": lambda *a: kp.layers.Penalized(Dense(*a), weights),
        "terms in slots": lambda *a: Dense(*a, **slots),
        KERAS: lambda *a: Dense(*a, **keras_slots),
    }


def chain(dense, width, layers):
    model = keras.Sequential(
        [keras.Input((width,)), *(dense(width) for _ in range(layers))]
    )
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("exponent", range(4, 9))
def test_parameters(options, report, exponent):
    """One layer with this number of parameters."""
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


@pytest.mark.parametrize("part", [300, 100, 10, 1])
def test_terms(options, report, part):
    """Small layers, three terms on each, or one: all to the first step, and a step."""
    terms = options.terms // part
    if terms == 0 or (terms > 1 and terms % 3):
        pytest.skip(f"{options.terms} terms are no {part} times 1, or 3 a layer")
    each, layers = min(terms, 3), max(1, terms // 3)
    x = np.random.default_rng(0).random((32, 16)).astype("float32")
    chain(Dense, 16, 2).train_on_batch(x, x)  # only the first model must wait for this
    made = {}

    def start(name, dense):
        made[name] = chain(dense, 16, layers)
        made[name].train_on_batch(x, x)

    makers = {n: partial(start, n, dense) for n, dense in with_terms(each).items()}
    starts = interleaved(makers, options.runs, warmups=0)
    turns = {n: steps_of(model, x, x, options.block) for n, model in made.items()}
    samples = interleaved(turns, min(options.rounds, 9))
    samples = {n: [s / options.block for s in t] for n, t in samples.items()}
    ours = [n for n in turns if n not in (NONE, KERAS)]
    bar = None if BACKEND == "torch" or part > 1 else 2.0
    against_none = [Claim(n, NONE, bar) for n in ours]
    rest = [Claim(KERAS, NONE), *(Claim(n, KERAS) for n in ours)]
    title = f"{terms} term{'s' if terms > 1 else ''}"
    report(measured(f"{title}, to the first step", starts, [*against_none, *rest]))
    names = [*ours, KERAS]
    report(measured(f"{title}, a step", samples, [Claim(n, NONE) for n in names]))
