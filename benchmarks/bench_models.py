"""Models that people train, with a penalty on every kernel: steps, and the start."""

from __future__ import annotations

import sys
import time
from functools import partial

import keras
import pytest
from harness import Claim, interleaved, measured
from real_models import KERAS, MODELS, NONE, batch_for, bert, ways
from steps import BACKEND, classifier, compiled, fresh, random_batch, steps_of

BAR = {"tensorflow": 1.03, "jax": 1.02}.get(BACKEND)


def made(name, way, small):
    build, size = MODELS[name]
    if build is bert:
        pytest.importorskip("keras_hub", exc_type=ImportError)
    model = compiled(ways()[way](build(small)))
    return model, *batch_for(model, size)


@pytest.mark.parametrize("name", MODELS)
def test_step(options, report, name):
    small = options.width < 256
    turns = {way: steps_of(*made(name, way, small), 1) for way in ways()}
    samples = interleaved(turns, min(options.rounds, 21))
    claims = [Claim(way, NONE, BAR) for way in turns if way not in (NONE, KERAS)]
    own = 1.0 if BAR else None
    claims += [
        Claim(f"L2 {where}", KERAS, own) for where in ("by penalize", "in slots")
    ]
    claims.append(Claim(KERAS, NONE))
    report(measured(f"A step of {name}", samples, claims))


@pytest.mark.parametrize("name", MODELS)
def test_first_step(options, report, name):
    """A process of its own for each: TensorFlow gives no memory of a model back."""
    small = options.width < 256
    made(name, NONE, True)  # is KerasHub there?
    samples = {way: [] for way in ways() if not way.startswith("L1")}
    for _ in range(options.runs):
        for way, seconds in samples.items():
            seconds += fresh(__file__, name, way, *["small"] * small)
    bar = 1.15 if BAR else None
    claims = [Claim(way, NONE, bar) for way in samples if way not in (NONE, KERAS)]
    claims.append(Claim(KERAS, NONE))
    report(measured(f"The first step of {name}", samples, claims))


def first_step(name: str, way: str, small: bool) -> float:
    """From the compiled model to the end of its first step: tracing and compiling.

    A small model has brought what a backend loads for its first step.
    """
    data = random_batch(8, 4, 10)
    classifier([keras.Input((4,)), keras.layers.Dense(10)]).train_on_batch(*data)
    model, x, y = made(name, way, small)
    start = time.perf_counter()
    model.train_on_batch(x, y)
    return time.perf_counter() - start


def test_load(options, report, tmp_path):
    """`load_model` of a ResNet50, with and without what `penalize` adds."""
    turns = {}
    for way in (NONE, "L2 by penalize"):
        path = tmp_path / f"{way}.keras"
        made("ResNet50, 64 by 64", way, options.width < 256)[0].save(path)
        turns[way] = partial(keras.saving.load_model, path)
    samples = interleaved(turns, min(options.rounds, 7))
    bar = 1.05 if BAR else None
    report(
        measured(
            "load_model of ResNet50", samples, [Claim("L2 by penalize", NONE, bar)]
        )
    )


if __name__ == "__main__":
    print(first_step(*sys.argv[1:3], bool(sys.argv[3:])))
