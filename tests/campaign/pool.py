"""Descriptions that are only drawn, and a choice of them that has everything."""

from __future__ import annotations

import hypothesis

from campaign.describe import Model, to_json
from campaign.draw import models
from campaign.features import features


def pool(seed: int, count: int) -> list[Model]:
    """So many descriptions, the same for a seed."""
    found: list[Model] = []

    def note(model: Model) -> None:
        found.append(model)

    # Within a run hypothesis draws variants of its own: many short runs differ more.
    for run in range(count // 10):
        settings = hypothesis.settings(
            max_examples=10,
            database=None,
            deadline=None,
            derandomize=False,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.seed(seed * 1009 + run)(settings(hypothesis.given(models())(note)))()
    return found


def covering(drawn: list[Model]) -> list[Model]:
    """Few models that have all that occurs in any: each adds most, for its length."""
    missing = set().union(*map(features, drawn))
    chosen = []
    while missing:
        best = max(
            drawn, key=lambda m: len(features(m) & missing) / (800 + len(to_json(m)))
        )
        chosen.append(best)
        missing -= features(best)
    return chosen
