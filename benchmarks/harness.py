"""Measures our code and the rival's in turns, and compares them. It needs no Keras."""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Action = Callable[[], object]
Samples = Mapping[str, Sequence[float]]


def use_threads(count: int) -> None:
    """Keep this process on `count` processors, 0 for all, before a backend starts.

    Each backend then makes as many threads. All three backends obey this setting.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if count:
        os.sched_setaffinity(0, allowed[-count:])
        os.environ["OMP_NUM_THREADS"] = str(count)


def interleaved(
    actions: Mapping[str, Action],
    rounds: int,
    warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of each action by round, each round in an order of its own.

    A disturbance of the machine then affects our code and the rival's equally, and no
    action always runs after the same other one, with its cache.
    """
    for _ in range(warmups):
        for action in actions.values():
            action()
    samples: dict[str, list[float]] = {name: [] for name in actions}
    order, names = random.Random(0), list(actions)
    for _ in range(rounds):
        order.shuffle(names)
        gc.collect()
        gc.disable()
        for name in names:
            start = clock()
            actions[name]()
            samples[name].append(clock() - start)
        gc.enable()
    return samples


@dataclass(frozen=True)
class Claim:
    """Ours is to take at most `bar` times what the rival takes.

    With `beyond`, of what each takes more than that one does.
    """

    ours: str
    rival: str
    bar: float | None = None
    beyond: str | None = None


@dataclass(frozen=True)
class Result:
    """A claim measured: medians, their ratio, and the quartiles of the rounds'."""

    bench: str
    claim: Claim
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    unit: str = "ms"

    @property
    def verdict(self) -> str:
        """Whether the measured ratio meets the bar, without any tolerance."""
        if self.claim.bar is None:
            return ""
        return "met" if self.ratio <= self.claim.bar else "**not met**"


def measured(
    bench: str, samples: Samples, claims: Iterable[Claim], unit: str = "ms"
) -> list[Result]:
    """The result of each claim. Seconds are shown in ms, other samples unchanged."""
    return [_measured(bench, samples, claim, unit) for claim in claims]


def _measured(bench: str, samples: Samples, claim: Claim, unit: str) -> Result:
    scale = 1e3 if unit == "ms" else 1.0
    ours, theirs = samples[claim.ours], samples[claim.rival]
    less = samples[claim.beyond] if claim.beyond else [0.0] * len(ours)
    ratios = [(o - n) / (t - n) for o, t, n in zip(ours, theirs, less, strict=True)]
    a, b, n = map(statistics.median, (ours, theirs, less))
    low, high = quartiles(ratios)
    a, b = scale * (a - n), scale * (b - n)
    return Result(bench, claim, a, b, a / b, low, high, unit)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


HEAD = (
    "| ours | against | ours | theirs | ratio | quartiles | bar | |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
)


def markdown(results: Iterable[Result]) -> str:
    """A table, a row for each result."""
    return "\n".join([HEAD, *map(_row, results)])


def figure(value: float) -> str:
    """A measured number with four digits, and never with an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _row(r: Result) -> str:
    rival = r.claim.rival + (f", beyond {r.claim.beyond}" if r.claim.beyond else "")
    cells = [
        r.claim.ours,
        rival,
        f"{figure(r.ours)} {r.unit}",
        f"{figure(r.theirs)} {r.unit}",
        f"{r.ratio:.3f}",
        f"{r.low:.3f} to {r.high:.3f}",
        "" if r.claim.bar is None else f"{r.claim.bar:.4g}",
        r.verdict,
    ]
    return f"| {' | '.join(cells)} |"
