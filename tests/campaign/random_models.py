"""Many random models on this backend: drawn, trained, recomputed, reloaded."""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import keras

from campaign import reload
from campaign.arrays import AUTODIFF, BACKEND
from campaign.check import check, without_penalties
from campaign.describe import Model, to_json
from campaign.draw import models
from campaign.features import features
from campaign.limits import LIMITS, NOT_DRAWN
from campaign.outcome import BOUNDS, Outcome

CHUNK = 25
"""The models of one run of hypothesis, which stops at its first failure."""
SHRINKING = 60.0
"""Seconds for making a failing model smaller."""


@dataclass
class Campaign:
    """The counts of a campaign so far."""

    seed: int
    models: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: list[dict[str, Any]] = field(default_factory=list)
    """Models with values beyond their bounds that are no faults, and why."""
    largest: float = 0.0
    worst: str = ""
    seconds: float = 0.0
    reloads: Counter[str] = field(default_factory=Counter)
    reload_failures: list[dict[str, Any]] = field(default_factory=list)

    def note(self, model: Model, outcome: Outcome) -> None:
        """Count a case that was compared."""
        self.models += 1
        self.compared.update(outcome.compared)
        self.features.update(features(model))
        share, of = outcome.worst
        if share > self.largest:
            self.largest, self.worst = share, f"{of} of seed {model.seed}"
        if outcome.elsewhere:
            found = {"values": list(outcome.elsewhere.values()), "model": repr(model)}
            self.elsewhere.append(found)

    def report(self) -> dict[str, Any]:
        """What is written down."""
        return {
            "backend": BACKEND,
            "autodiff": AUTODIFF,
            "keras": keras.__version__,
            "seed": self.seed,
            "models": self.models,
            "compared": dict(self.compared),
            "largest_deviation": {"share_of_bound": self.largest, "of": self.worst},
            "bounds": BOUNDS,
            "failures": self.failures,
            "beyond_and_no_fault": self.elsewhere,
            "reloads": dict(self.reloads),
            "reload_failures": self.reload_failures,
            "features": dict(sorted(self.features.items())),
            "not_drawn": {f.__name__: f.__doc__ for f in LIMITS} | NOT_DRAWN,
            "seconds": round(self.seconds, 1),
        }


def faults_of(model: Model, folder: Path | None = None) -> tuple[list[str], Outcome]:
    """What is wrong with a case; an exception is a fault too."""
    outcome = Outcome()
    try:
        _, built = check(model, outcome)
        if folder is not None and not outcome.faults:
            reload.save(folder, len(list(folder.glob("*.keras"))), model, built)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if "keras_penalties/" in f.filename] or frames
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        text = f"{type(error).__name__} at {place}: {str(error)[:600]}"
        _, same = without_penalties(model)
        if type(same) is type(error):
            outcome.elsewhere["an error"] = text
        else:
            outcome.faults.append(text)
    return outcome.faults, outcome


class Chunk:
    """One run of hypothesis, whose failing model is made smaller for a limited time."""

    def __init__(self, campaign: Campaign, seed: int, folder: Path | None) -> None:
        self.campaign, self.seed, self.folder = campaign, seed, folder
        self.known: dict[str, list[str]] = {}
        self.failing: Model | None = None
        self.deadline = 0.0

    def run(self, count: int) -> None:
        """Draw and check so many models, fewer if one fails."""
        settings = hypothesis.settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
            report_multiple_bugs=False,
            verbosity=hypothesis.Verbosity.quiet,
        )
        test = hypothesis.given(models())(self._one)
        test = hypothesis.seed(self.seed)(settings(test))
        try:
            test()
        except Exception as error:
            self._failed(error)

    def _one(self, model: Model) -> None:
        text = to_json(model)
        if text not in self.known:
            self.known[text] = self._faults(model)
        if self.known[text]:
            self.failing = model
            # At this one place: hypothesis takes two places for two faults.
            raise AssertionError(self.known[text][0])

    def _faults(self, model: Model) -> list[str]:
        """What is wrong with a case; nothing, once the time for shrinking is over."""
        if self.failing is None:
            faults, outcome = faults_of(model, self.folder)
            self.campaign.note(model, outcome)
            self.deadline = time.monotonic() + SHRINKING
            return faults
        return [] if time.monotonic() > self.deadline else faults_of(model)[0]

    def _failed(self, error: Exception) -> None:
        if self.failing is None:
            raise error
        faults = self.known[to_json(self.failing)]
        found = {"seed": self.seed, "faults": faults, "model": repr(self.failing)}
        self.campaign.failures.append(found)
        print("\n".join(["FAILED:", *faults[:6], repr(self.failing)]), flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("--count", type=int, default=100, help="how many models")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100000)
    parser.add_argument("--reloads", type=int, default=0, help="how many are reloaded")
    parser.add_argument("--others", default="", help="other backends to reload on")
    parser.add_argument("--report", type=Path, help="a JSON file to write")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after them")


def run(arguments: argparse.Namespace) -> int:
    """The campaign; 1 if something differed."""
    campaign, start = Campaign(arguments.seed), time.monotonic()
    print(f"{arguments.count} models on {BACKEND}, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place, number = Path(folder), 0
        while (
            campaign.models < arguments.count and campaign.seconds < arguments.seconds
        ):
            saved = len(list(place.glob("*.keras")))
            wanted = place if saved < arguments.reloads else None
            count = min(CHUNK, arguments.count - campaign.models)
            Chunk(campaign, arguments.seed * 100_003 + number, wanted).run(count)
            number += 1
            _forget()
            campaign.seconds = time.monotonic() - start
            print(
                f"{campaign.models} models, {sum(campaign.compared.values())} values, "
                f"{len(campaign.failures)} failures, largest deviation "
                f"{campaign.largest:.2f} of its bound, {campaign.seconds:.0f} s",
                flush=True,
            )
            _write(arguments.report, campaign)
        if arguments.reloads:
            _reload(campaign, place, arguments)
    campaign.seconds = time.monotonic() - start
    _write(arguments.report, campaign)
    return 1 if campaign.failures or campaign.reload_failures else 0


def _forget() -> None:
    """Let go of the compiled functions of models that are gone."""
    keras.backend.clear_session()
    if BACKEND == "jax":
        import jax

        jax.clear_caches()
    gc.collect()


def _reload(campaign: Campaign, folder: Path, arguments: argparse.Namespace) -> None:
    for backend in [BACKEND, *filter(None, arguments.others.split(","))]:
        for result in reload.in_fresh_process(folder, backend, backend == BACKEND):
            campaign.reloads[backend] += 1
            if result["faults"]:
                path = folder / f"{result['number']}.json"
                model = path.read_text() if path.exists() else ""
                found = {"backend": backend, **result, "model": model}
                campaign.reload_failures.append(found)
                print(f"RELOAD on {backend}: {result['faults'][:3]}\n{model}")
        print(f"{campaign.reloads[backend]} reloaded on {backend}", flush=True)
        _write(arguments.report, campaign)


def _write(path: Path | None, campaign: Campaign) -> None:
    if path is not None:
        path.write_text(json.dumps(campaign.report(), indent=1))
