"""Penalties on singular values, compared with the one SVD that they need."""

from __future__ import annotations

from functools import partial

import numpy as np
from harness import Claim, interleaved, measured
from keras import ops
from steps import BACKEND

from keras_penalties import penalties
from keras_penalties.autodiff import value_and_gradient
from keras_penalties.compiling import compiled

SVD = "one SVD"
NUCLEAR = penalties.Spectral(penalties.L1(1.0))


def test_spectral(options, report):
    bar = None if BACKEND == "torch" else 1.1
    functions = {
        "Spectral(L1): value and gradient": lambda x, t: value_and_gradient(
            NUCLEAR.value, x
        ),
        "Spectral(L1): proximal map": NUCLEAR.prox,
    }
    report(against_svd(options.size, functions, options.rounds, bar))


def test_spectral_of_a_bounded_rank(options, report):
    """A turn of the whole SVD takes seconds."""
    bar, most = None if BACKEND == "torch" else 0.2, options.size // 8
    bounded = penalties.Spectral(penalties.L1(1.0), max_rank=most)
    functions = {
        f"max_rank={most}: value and gradient": lambda x, t: value_and_gradient(
            bounded.value, x
        ),
        f"max_rank={most}: proximal map": bounded.prox,
    }
    report(against_svd(4 * options.size, functions, options.runs, bar))


def against_svd(n, functions, rounds, bar):
    x = np.random.default_rng(0).standard_normal((n, n)).astype("float32")
    x, one = ops.convert_to_tensor(x), ops.convert_to_tensor(np.float32(1.0))

    def run(function):
        return [ops.convert_to_numpy(part) for part in as_tuple(function(x, one))]

    every = {SVD: lambda x, t: ops.svd(x, full_matrices=False), **functions}
    turns = {name: partial(run, compiled(f)) for name, f in every.items()}
    samples = interleaved(turns, rounds)
    claims = [Claim(name, SVD, bar) for name in functions]
    return measured(f"Singular values, {n} by {n}", samples, claims)


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)
