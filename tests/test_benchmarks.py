"""The benchmarks' harness with a false clock, and each benchmark at tiny sizes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKEND

pytestmark = pytest.mark.one_backend

FOLDER = Path(__file__).parents[1] / "benchmarks"
FILES = sorted(
    f.name for f in FOLDER.glob("bench_*.py") if "import Claim" in f.read_text()
)


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import harness

    monkeypatch.setattr(harness.gc, "collect", lambda: 0)  # seconds, in a full process
    return harness


class Clock:
    """Time goes on as the actions say, and the machine gets slower by the round."""

    def __init__(self):
        self.now, self.done = 0.0, []

    def __call__(self):
        return self.now

    def taking(self, name, seconds):
        def action():
            self.done.append(name)
            self.now += seconds * (1 + len(self.done) // 3)

        return action


def test_ours_and_the_rival_take_turns(harness):
    clock = Clock()
    actions = {name: clock.taking(name, 1.0) for name in "abc"}
    samples = harness.interleaved(actions, 20, warmups=2, clock=clock)
    rounds = [tuple(clock.done[i : i + 3]) for i in range(0, len(clock.done), 3)]
    assert len(rounds) == 22
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds[2:])) > 3  # not always in one order
    assert {len(s) for s in samples.values()} == {20}
    # No warm-up is measured: it is the quick beginning.
    assert min(map(min, samples.values())) > 2.0


def test_ratio_spread_and_verdict(harness):
    samples = {"ours": [2.0, 3.0, 30.0], "rival": [1.0, 2.0, 20.0], "none": [0.5] * 3}
    claims = [
        harness.Claim("ours", "rival", 1.5),
        harness.Claim("ours", "rival", 1.49),
        harness.Claim("ours", "rival", 2.0, beyond="none"),
        harness.Claim("rival", "ours"),
    ]
    met, missed, beyond, bare = harness.measured("b", samples, claims)
    assert (met.ours, met.theirs, met.ratio) == (3000.0, 2000.0, 1.5)  # in ms
    assert (met.low, met.high) == (1.5, 1.75)  # of 2, 1.5 and 1.5
    assert (met.verdict, missed.verdict, bare.verdict) == ("met", "**not met**", "")
    assert beyond.ratio == pytest.approx(2.5 / 1.5)
    assert beyond.high == pytest.approx(statistics.mean([3.0, 2.5 / 1.5]))


def test_the_table_has_a_row_for_each(harness):
    samples = {"ours": [1.0], "rival": [2.0]}
    claims = [harness.Claim("ours", "rival", 1.0), harness.Claim("rival", "ours")]
    rows = harness.markdown(harness.measured("b", samples, claims)).splitlines()[2:]
    assert rows == [
        "| ours | rival | 1000 ms | 2000 ms | 0.500 | 0.500 to 0.500 | 1 | met |",
        "| rival | ours | 2000 ms | 1000 ms | 2.000 | 2.000 to 2.000 |  |  |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_each_benchmark_runs_at_tiny_sizes(file, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    from run import QUICK

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", FOLDER / file]
    finished = subprocess.run(
        [
            *command,
            *(f"--{n}={v}" for n, v in QUICK.items()),
            f"--json={tmp_path / 'r'}",
        ],
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:]
    if "SAELens is not installed" in finished.stdout:
        pytest.skip("SAELens is not installed")
    assert '"ratio"' in (tmp_path / "r").read_text()


def test_a_filter_is_an_edge_only_if_it_has_one_place_and_one_angle(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from edges import PLACES, edges

    y, x = np.meshgrid(PLACES, PLACES, indexing="ij")
    square = x**2 + y**2
    good = {
        "step": np.where(x + 0.6 * y > 0.3, 1.0, -1.0) * np.exp(-square / 30),
        "bar": np.exp(-0.5 * (0.8 * x - 0.6 * y) ** 2),
    }
    bad = {
        "noise": np.random.default_rng(0).normal(size=(8, 8)),
        "blob": np.exp(-square / 4),
        "ring": np.exp(-square / 4) - np.exp(-square / 16) / 4,
        "board": np.cos(x) * np.cos(y),
        "two waves": np.cos(2 * x + y) + np.cos(x - 2 * y),
        "one pixel": np.where(square < 1, np.sign(x) == np.sign(y), 0.0),
        "flat": np.ones((8, 8)),
    }
    found = edges(np.array([f.ravel() for f in {**good, **bad}.values()]))
    assert found.tolist() == [True] * len(good) + [False] * len(bad)


@pytest.mark.slow
def test_the_objective_of_ng_is_the_models(monkeypatch):
    pytest.importorskip("skimage", reason="its photographs")
    monkeypatch.syspath_prepend(FOLDER)
    import bench_ng
    from scipy.optimize import approx_fprime

    x = bench_ng.patches()[:50]
    model = bench_ng.untrained()
    model.compile("sgd", "half_sum_squared_error")
    weights = bench_ng.weights_of(model)
    given = x.astype("float64"), bench_ng.HIDDEN, model.rate
    value, slope = bench_ng.objective(weights, *given)
    theirs = model.evaluate(x, x, batch_size=50, verbose=0, return_dict=True)["loss"]
    assert theirs == pytest.approx(value, rel=1e-5)
    numeric = approx_fprime(weights, lambda w: bench_ng.objective(w, *given)[0])
    np.testing.assert_allclose(slope, numeric, atol=2e-6)


@pytest.mark.slow
def test_bench_ng_says_so_if_too_few_steps_miss_the_bars():
    pytest.importorskip("skimage", reason="its photographs")
    command = [sys.executable, FOLDER / "bench_ng.py", "--quick"]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    printed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "| noise | 0 of 1,000 |" in printed
    assert printed.count("**not met**") >= 2  # 100 steps explain little
