"""The numbers of a case: what goes in, the targets, the weights to start from."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from campaign.describe import CLASSES, SHAPES, TIME, WIDTH, WORDS, Input, Loss, Model

CLASS_WEIGHTS = {0: 0.5, 1: 2.0, 2: 1.25}


def _rng(*keys: Any) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(str(key).encode()) for key in keys])


def start(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values that a weight starts from: what its name and the seed say."""
    # Of a size that keeps values near 1: else some trainings go to infinity.
    size = 0.6 * np.sqrt(3 / max(3, np.prod(shape[:-1])))
    found = size * _rng(seed, name).normal(size=shape)
    if name.endswith("variance"):
        found = 0.5 + np.abs(found)
    return found.astype("float32")


@dataclass(frozen=True)
class Data:
    """One array for each input, and for each output targets and weights."""

    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    weights: list[np.ndarray | None]

    def part(self, first: int, last: int) -> Data:
        """Some of the samples."""
        return Data(
            [x[first:last] for x in self.inputs],
            [y[first:last] for y in self.targets],
            [None if w is None else w[first:last] for w in self.weights],
        )


def data_of(model: Model, output_shapes: list[str]) -> Data:
    """All samples of a case."""
    count = model.fit.samples
    pairs = zip(model.losses, output_shapes, strict=True)
    found = [
        _target(model.seed, i, count, loss, kind)
        for i, (loss, kind) in enumerate(pairs)
    ]
    return Data(
        [_input(model.seed, count, x) for x in model.graph.inputs],
        [target for target, _ in found],
        [weight for _, weight in found],
    )


def _input(seed: int, count: int, given: Input) -> np.ndarray:
    rng, shape = _rng(seed, given.name, given.shape), (count, *SHAPES[given.shape])
    if given.shape == "weight":
        return (rng.integers(0, 4, size=shape) / 2).astype("float32")
    lengths = rng.integers(1, TIME + 1, size=(count, 1))
    real = np.arange(TIME) < lengths
    if given.shape in ("tokens", "padded_tokens"):
        words = rng.integers(1, WORDS, size=shape)
        return (words * real if given.shape == "padded_tokens" else words).astype(
            "int32"
        )
    x = rng.normal(size=shape).astype("float32")
    if given.shape == "padded":
        x = x * real[..., None].astype("float32")
    if given.shape == "unknown_target":
        x[rng.random(size=shape) < 0.3] = np.nan
    return x


def _target(
    seed: int, place: int, count: int, loss: Loss, kind: str
) -> tuple[np.ndarray, np.ndarray | None]:
    rng = _rng(seed, "target", place)
    rows = (count,) if kind == "flat" else (count, TIME)
    if loss.kind == "crossentropy":
        y = rng.integers(0, CLASSES, size=rows).astype("int32")
    else:
        y = rng.normal(size=(*rows, WIDTH)).astype("float32")
    if loss.ignore:
        y[rng.random(size=y.shape) < 0.3] = np.nan
    weight = (rng.integers(0, 4, size=rows) / 2).astype("float32")
    return y, weight if loss.sample_weight else None
