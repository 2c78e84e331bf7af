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


def test_spectral(options, report):
    nuclear = penalties.Spectral(penalties.L1(1.0))
    n = options.size
    x = np.random.default_rng(0).standard_normal((n, n)).astype("float32")
    x, one = ops.convert_to_tensor(x), ops.convert_to_tensor(np.float32(1.0))
    svd = "one SVD"
    functions = {
        svd: compiled(lambda x, t: ops.svd(x, full_matrices=False)),
        "Spectral(L1): value and gradient": compiled(
            lambda x, t: value_and_gradient(nuclear.value, x)
        ),
        "Spectral(L1): proximal map": compiled(nuclear.prox),
    }

    def run(function):
        return [ops.convert_to_numpy(part) for part in as_tuple(function(x, one))]

    turns = {name: partial(run, f) for name, f in functions.items()}
    samples = interleaved(turns, options.rounds)
    bar = None if BACKEND == "torch" else 1.1
    claims = [Claim(name, svd, bar) for name in functions if name != svd]
    report(measured(f"Singular values, {n} by {n}", samples, claims))


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)
