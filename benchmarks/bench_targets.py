"""`Target` and cooper on three convex problems with exact multipliers.

    pip install cooper-optim==1.0.1    # needs torch
    KERAS_BACKEND=torch python benchmarks/bench_targets.py [--docs]

The problems are those of tests/test_targets.py. All runs take the same full-batch SGD
steps at the same rates, and the same rate of the multiplier; cooper's nuPI has the gain
that a target calls damping, its augmented Lagrangian the product of the two. "Settled"
is the first step from which the solution and the multiplier stay within 1e-3 of exact.
With --docs the table goes into docs/strengths.md.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cooper
import keras
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import test_targets as known
from pages import table, write

import keras_penalties as kp

RATE, DAMPING, CLOSE = 0.01, 10.0, 1e-3


@dataclass
class Problem:
    """Least squares under one constraint, its solution and its multiplier."""

    name: str
    x: Any
    y: Any
    kind: str
    held: float
    penalty: Any
    on_output: bool
    kernel: Any
    bias: float | None  # None: the model has none
    multiplier: float
    steps: int
    rates: Any  # of the solution, one for each step

    def measure(self, kernel: Any, outputs: Any) -> Any:
        """The measure that is constrained, in torch."""
        if self.on_output:
            return torch.mean(outputs)
        return torch.sum(kernel**2 if self.penalty is kp.penalties.L2 else abs(kernel))


def problems():
    x, y = known.SKEW - known.SKEW.mean(0), known.SKEW @ known.TRUTH
    y = y - y.mean()
    kernel, multiplier = known.l2_ball(x, y, 2.0)
    on_weight = {"kind": "<=", "held": 2.0, "on_output": False}
    yield Problem(
        name="least squares, sum of squares at most 2", x=x, y=y,
        penalty=kp.penalties.L2, kernel=kernel, multiplier=multiplier, bias=0.0,
        steps=2500, rates=np.full(2500, 0.3), **on_weight,
    )  # fmt: skip
    # A subgradient step jumps around a zero, so the step must become small.
    falling = 1e-4 + 0.0999 * 0.5 * (1 + np.cos(np.pi * np.arange(3000) / 3000))
    yield Problem(
        name="lasso, sum of sizes at most 2", x=known.Q, y=known.Q @ known.TRUTH,
        penalty=kp.penalties.L1, kernel=[1.5, -0.5, 0.0, 0.0], multiplier=0.5,
        bias=None, steps=3000, rates=falling, **on_weight,
    )  # fmt: skip
    x = known.Q - known.Q.mean(0)
    yield Problem(
        name="mean output at least 3", x=x, y=2.0 + 0.1 * x @ known.TRUTH, kind=">=",
        held=3.0, penalty=kp.penalties.L1, on_output=True, kernel=0.1 * known.TRUTH,
        bias=3.0, multiplier=-1.0, steps=1500, rates=np.full(1500, 0.1),
    )  # fmt: skip


class Recorder(keras.callbacks.Callback):
    """The kernel, the bias and the multiplier after each step."""

    def __init__(self, dense, host):
        super().__init__()
        self.dense, self.host, self.rows = dense, host, []

    def on_train_batch_end(self, batch, logs=None):
        _ = self.model  # on JAX this brings the weights back
        found = [*self.dense.weights, self.host.strengths]
        values = [np.ravel(keras.ops.convert_to_numpy(v)) for v in found]
        self.rows.append(np.concatenate(values))


def ours(problem, record):
    """A `Target` in plain `fit`; the seconds are those of a second, compiled fit."""
    target = kp.Target(
        problem.held, "mean" if problem.on_output else "value", problem.kind,
        rate=RATE, damping=DAMPING,
    )  # fmt: skip
    penalty = problem.penalty(target)
    start = {"bias_initializer": "ones" if problem.on_output else "zeros"}
    start |= {"use_bias": problem.bias is not None}
    on = {"outputs": penalty} if problem.on_output else {"weights": {"kernel": penalty}}
    dense, model = known.regression(lambda d: kp.layers.Penalized(d, **on), **start)
    rate = problem.rates[0]
    if np.ptp(problem.rates):
        rate = kp.strengths.CosineRamp(rate, 1e-4, problem.steps)
    model.compile(keras.optimizers.SGD(rate), "half_sum_squared_error")
    first = [keras.ops.convert_to_numpy(v).copy() for v in model.variables]
    x, y = problem.x, problem.y[:, None]
    model.fit(x, y, batch_size=len(x), verbose=0)
    for variable, value in zip(model.variables, first, strict=True):
        variable.assign(value)
    model.optimizer.iterations.assign(0)
    seen = Recorder(dense, model.layers[-1])
    data = [np.tile(a, (problem.steps, 1)) for a in (x, y)]
    begin = time.perf_counter()
    model.fit(
        *data, batch_size=len(x), shuffle=False, verbose=0,
        callbacks=[seen] if record else [],
    )  # fmt: skip
    return seen.rows, time.perf_counter() - begin


class Constrained(cooper.ConstrainedMinimizationProblem):
    """The problem, as cooper has it."""

    def __init__(self, problem, augmented):
        super().__init__()
        self.problem, kinds = problem, cooper.ConstraintType
        more = {}
        if augmented:
            more["formulation_type"] = cooper.formulations.AugmentedLagrangian
            more["penalty_coefficient"] = (
                cooper.penalty_coefficients.DensePenaltyCoefficient(
                    torch.tensor(DAMPING * RATE)
                )
            )
        self.multiplier = cooper.multipliers.DenseMultiplier(num_constraints=1)
        self.held = cooper.Constraint(
            kinds.INEQUALITY, multiplier=self.multiplier, **more
        )
        self.x, self.y = (torch.tensor(a).float() for a in (problem.x, problem.y))
        self.sign = -1.0 if problem.kind == ">=" else 1.0
        self.kernel = torch.nn.Parameter(torch.zeros(known.WIDTH))
        start = torch.full((int(problem.bias is not None),), float(problem.on_output))
        self.bias = torch.nn.Parameter(start)

    def compute_cmp_state(self):
        outputs = self.x @ self.kernel + torch.sum(self.bias)
        error = outputs - self.y
        measure = self.problem.measure(self.kernel, outputs)
        excess = self.sign * (measure - self.problem.held)
        state = cooper.ConstraintState(violation=excess)
        return cooper.CMPState(0.5 * torch.mean(error**2), {self.held: state})


def coopers(how):
    def run(problem, record):
        cmp = Constrained(problem, augmented=how == "augmented")
        primal = torch.optim.SGD([cmp.kernel, cmp.bias], lr=problem.rates[0])
        dual = torch.optim.SGD(cmp.dual_parameters(), lr=RATE, maximize=True)
        if how == "nuPI":
            dual = cooper.optim.nuPI(
                cmp.dual_parameters(), lr=RATE, Kp=DAMPING, Ki=1.0, maximize=True
            )
        both = cooper.optim.SimultaneousOptimizer(cmp, primal, dual)
        rows, begin = [], time.perf_counter()
        for rate in problem.rates:
            primal.param_groups[0]["lr"] = rate
            both.roll()
            if record:
                found = [cmp.kernel, cmp.bias, cmp.sign * cmp.multiplier.weight]
                rows.append(torch.cat(found).detach().numpy().copy())
        return rows, time.perf_counter() - begin

    return run


RUNS = {
    f"`Target`, {keras.backend.backend()}": ours,
    "cooper, gradient ascent": coopers("ascent"),
    "cooper, augmented Lagrangian": coopers("augmented"),
    "cooper, nuPI": coopers("nuPI"),
}


def rows():
    for problem in problems():
        bias = [] if problem.bias is None else [problem.bias]
        exact = np.array([*problem.kernel, *bias, problem.multiplier])
        for name, run in RUNS.items():
            errors = abs(np.array(run(problem, record=True)[0]) - exact)
            far = np.flatnonzero(errors.max(axis=1) > CLOSE)
            settled = far[-1] + 2 if len(far) else 1
            seconds = min(run(problem, record=False)[1] for _ in range(2))
            yield (
                problem.name,
                name,
                f"{errors[-1, :-1].max():.0e}",
                f"{errors[-1, -1]:.0e}",
                "never" if settled > problem.steps else f"step {settled:,}",
                f"{1e3 * seconds / problem.steps:.2f}",
            )


def main(options):
    torch.set_num_threads(1)
    head = "problem | run | solution error | multiplier error | settled | ms a step"
    versions = [f"{m.__name__} {m.__version__}" for m in (keras, torch, cooper)]
    text = f"With {', '.join(versions)}:\n\n{table(head, rows())}"
    print(text)
    if "--docs" in options:
        write("strengths.md", "bench_targets", text)


if __name__ == "__main__":
    main(sys.argv[1:])
