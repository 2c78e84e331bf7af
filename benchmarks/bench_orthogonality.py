"""An estimate of orthogonality by some columns, compared with Keras' exact one."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
from harness import Claim, interleaved, measured
from keras import ops
from steps import BACKEND

from keras_penalties import penalties
from keras_penalties.autodiff import value_and_gradient
from keras_penalties.compiling import compiled

SAMPLES = 16


def test_orthogonality_by_samples(options, report):
    """What a step adds: the value and its gradient. The kernel is wide for a CPU."""
    n = 2 * options.size
    x = np.random.default_rng(0).standard_normal((n, n)) / np.sqrt(n)
    x = ops.convert_to_tensor(x.astype("float32"))
    rival = "Keras' OrthogonalRegularizer"
    estimate = f"Orthogonality, {SAMPLES} samples"
    values = {
        rival: keras.regularizers.OrthogonalRegularizer(1.0, mode="columns"),
        "Orthogonality": penalties.Orthogonality(1.0),
        estimate: penalties.Orthogonality(1.0, samples=SAMPLES),
    }

    def run(function):
        return [ops.convert_to_numpy(part) for part in function(x)]

    turns = {
        name: partial(run, compiled(partial(value_and_gradient, f)))
        for name, f in values.items()
    }
    samples = interleaved(turns, options.rounds)
    bar = None if BACKEND == "torch" else 0.1
    claims = [Claim("Orthogonality", rival), Claim(estimate, rival, bar)]
    report(measured(f"Orthogonality, {n} by {n}", samples, claims))
