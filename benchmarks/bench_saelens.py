"""Dictionary autoencoders: ours by plain `fit`, and SAELens by its own trainer.

The data, the start, the order of the batches, the optimizer and the objective are the
same. The data is made from a known dictionary, so that one can tell what was found.
`pip install sae-lens` first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from harness import Claim, interleaved, measured
from keras import ops
from steps import BACKEND

import keras_penalties as kp

RATE, BATCH, BATCHES, ACTIVE = 1e-3, 256, 200, 8
SIZES = {"small": (64, 256), "large": (256, 1024)}
STRENGTHS = {"L1": 0.3, "JumpReLU": 0.1}
"""In SAELens' units: our loss is half of SAELens', and so are our strengths."""


@dataclass(frozen=True)
class Data:
    """Sums of some `ACTIVE` directions of a known dictionary, each 0.5 to 1.5 long."""

    dictionary: np.ndarray
    train: np.ndarray
    test: np.ndarray


def made(features: int, units: int) -> Data:
    """The same bytes in every run."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(units, features))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def rows(count: int) -> np.ndarray:
        on = rng.random((count, units)) < ACTIVE / units
        code = on * rng.uniform(0.5, 1.5, (count, units))
        return np.asarray(code @ directions, "float32")

    return Data(directions, rows(BATCH * BATCHES), rows(4096))


def theirs(kind: str, data: Data) -> Any:
    """SAELens' autoencoder before training."""
    import sae_lens as s
    import torch

    torch.manual_seed(0)
    units, features = data.dictionary.shape
    sizes = {"d_in": features, "d_sae": units}
    if kind == "TopK":
        # Directions of length one, as ours. With SAELens' 0.1, Adam's first steps are
        # large beside the weights, and many units of the large size die.
        config = s.TopKTrainingSAEConfig(**sizes, k=ACTIVE, decoder_init_norm=1.0)
        return s.TopKTrainingSAE(config)
    strength = STRENGTHS[kind]
    if kind == "L1":
        config = s.StandardTrainingSAEConfig(**sizes, l1_coefficient=strength)
        return s.StandardTrainingSAE(config)
    config = s.JumpReLUTrainingSAEConfig(**sizes, l0_coefficient=strength)
    return s.JumpReLUTrainingSAE(config)


def trained_theirs(
    sae: Any, x: np.ndarray, steps: int, rate: float = RATE, window: int = 1000
) -> None:
    """By SAELens' own trainer, which cuts the gradient at a norm of 1.

    A unit counts as dead after `window` steps without an entry.
    """
    import torch
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    parts = [torch.tensor(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=steps * BATCH,
            train_batch_size_samples=BATCH,
            lr=rate,
            lr_end=rate,
            dead_feature_window=window,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=itertools.cycle(parts),
    ).fit()


def ours(kind: str, data: Data, sae: Any) -> keras.Model:
    """Our model, with the start of SAELens' one."""
    units, features = data.dictionary.shape
    model = {
        "TopK": lambda: kp.models.TopKAutoencoder(units, ACTIVE),
        "L1": lambda: kp.models.ReLUAutoencoder(
            units, kp.penalties.L1(STRENGTHS["L1"] / 2)
        ),
        "JumpReLU": lambda: kp.models.JumpReLUAutoencoder(
            units, STRENGTHS["JumpReLU"] / 2
        ),
    }[kind]()
    model.build((None, features))
    start = sae.W_dec.detach().numpy().copy()
    if model.unit_norm:
        start /= np.linalg.norm(start, axis=1, keepdims=True)
    model.decoder.kernel.assign(start)
    model.encoder.kernel.assign(start.T)
    return compiled(model, RATE)


def compiled(model: keras.Model, rate: float) -> keras.Model:
    """With SAELens' Adam. Our loss is half of SAELens', and so is the largest norm."""
    adam = keras.optimizers.Adam(rate, epsilon=1e-8, global_clipnorm=0.5)
    at_once = 1 if BACKEND == "torch" else 10
    model.compile(adam, "half_sum_squared_error", steps_per_execution=at_once)
    return model


def trained_ours(model: keras.Model, x: np.ndarray, steps: int) -> None:
    """By plain `fit`."""
    epochs, rest = divmod(steps, BATCHES)
    if epochs:
        model.fit(**batches(x), epochs=epochs, verbose=0)
    if rest:
        model.fit(**batches(x[: rest * BATCH]), verbose=0)


def batches(x: np.ndarray) -> dict[str, Any]:
    """What `fit` takes. TensorFlow gets batches that are cut already, as SAELens."""
    if BACKEND != "tensorflow":
        return {"x": x, "y": x, "batch_size": BATCH, "shuffle": False}
    import tensorflow as tf

    cut = tf.data.Dataset.from_tensor_slices(x.reshape(-1, BATCH, x.shape[1]))
    return {"x": tf.data.Dataset.zip((cut, cut)), "shuffle": False}


def quality(
    data: Data, code: np.ndarray, output: np.ndarray, found: np.ndarray
) -> dict[str, float]:
    """What an autoencoder has found: except for L0, the more the better."""
    x = data.test
    left = np.square(x - output).sum() / np.square(x - x.mean(axis=0)).sum()
    return {
        "explained variance": 1.0 - float(left),
        "MMCS": kp.mmcs(found, data.dictionary),
        "L0": float((code > 0).sum(axis=1).mean()),
        "alive": float((code > 0).any(axis=0).mean()),
    }


def figures_of_ours(model: keras.Model, data: Data) -> dict[str, float]:
    code = coded(model, data.test)
    output = model.predict(data.test, verbose=0)
    return quality(data, code, output, ops.convert_to_numpy(model.dictionary))


def figures_of_theirs(sae: Any, data: Data) -> dict[str, float]:
    import torch

    with torch.no_grad():
        code = sae.encode(torch.tensor(data.test))
        output = sae.decode(code).numpy()
        return quality(data, code.numpy(), output, sae.W_dec.numpy())


@pytest.fixture(autouse=True)
def saelens() -> None:
    pytest.importorskip("sae_lens", reason="SAELens is not installed")


@pytest.mark.parametrize("kind", ["TopK", "L1", "JumpReLU"])
@pytest.mark.parametrize("size", SIZES)
def test_quality(options: Any, report: Callable[[Any], None], size: str, kind: str):
    """SAELens' figure by ours: at most 1.01 where ours is within 1 %, or better."""
    data = made(*SIZES[size])
    sae = theirs(kind, data)
    model, steps = ours(kind, data, sae), 4 * options.steps
    trained_theirs(sae, data.train, steps)
    trained_ours(model, data.train, steps)
    mine, rival = figures_of_ours(model, data), figures_of_theirs(sae, data)
    for name in ("explained variance", "MMCS", "L0", "alive"):
        bar = None if name == "L0" else 1.01
        samples: Mapping[str, list[float]] = {
            "SAELens": [rival[name]],
            "ours": [mine[name]],
        }
        title = f"{kind}, {size}, {steps:,} steps: {name}, the more the better"
        if name == "L0":
            title = f"{kind}, {size}, {steps:,} steps: L0"
        report(measured(title, samples, [Claim("SAELens", "ours", bar)], unit=""))


def many_dead(data: Data) -> tuple[Any, list[np.ndarray]]:
    """SAELens' autoencoder, and its start for ours: a start after which units die.

    There are four times as many units as directions in the data, and the encoder does
    not start as the decoder's transpose.
    """
    import sae_lens as s
    import torch

    torch.manual_seed(0)
    directions, features = data.dictionary.shape
    config = s.TopKTrainingSAEConfig(
        d_in=features, d_sae=4 * directions, k=ACTIVE, decoder_init_norm=1.0
    )
    sae = s.TopKTrainingSAE(config)
    encoder = torch.randn_like(sae.W_enc)
    sae.W_enc.data = encoder / encoder.norm(dim=0)
    return sae, [w.detach().numpy().copy() for w in (sae.W_enc, sae.W_dec)]


def share_of_dead(encode: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    """The share of units that no row of `x` makes active."""
    parts = (encode(x[i : i + 4096]) for i in range(0, len(x), 4096))
    return 1.0 - float(np.any([(p > 0).any(axis=0) for p in parts], axis=0).mean())


def test_dead_units(options: Any, report: Callable[[Any], None]):
    """AuxK, where without it more than half of the units die. Dead: in 51,200 rows."""
    import torch

    data, rate, window, steps = made(*SIZES["small"]), 0.01, 50, 2 * options.steps
    dead, explained = {}, {}
    for name, aux in (("ours without AuxK", None), ("ours with AuxK", 1.0)):
        sae, start = many_dead(data)
        model = kp.models.TopKAutoencoder(
            sae.cfg.d_sae, ACTIVE, aux=aux, dead_after=window
        )
        model.build((None, data.train.shape[1]))
        for kernel, value in zip((model.encoder, model.decoder), start, strict=True):
            kernel.kernel.assign(value)
        trained_ours(compiled(model, rate), data.train, steps)
        encode = partial(coded, model)
        dead[name] = share_of_dead(encode, data.train)
        explained[name] = figures_of_ours(model, data)["explained variance"]
    trained_theirs(sae, data.train, steps, rate, window)
    with torch.no_grad():
        dead["SAELens' AuxK"] = share_of_dead(
            lambda x: sae.encode(torch.tensor(x)).numpy(), data.train
        )
    explained["SAELens' AuxK"] = figures_of_theirs(sae, data)["explained variance"]
    title = f"TopK with {sae.cfg.d_sae:,} units for 256 directions, {steps:,} steps"
    samples = {name: [100 * value] for name, value in dead.items()}
    samples |= {"10 % dead": [10.0], "50 % dead": [50.0]}
    claims = [
        Claim("50 % dead", "ours without AuxK", 1.0),
        Claim("ours with AuxK", "10 % dead", 1.0),
        Claim("ours with AuxK", "SAELens' AuxK"),
    ]
    report(measured(f"{title}: dead units", samples, claims, unit="%"))
    samples = {name: [value] for name, value in explained.items()}
    claims = [
        Claim("ours without AuxK", "ours with AuxK"),
        Claim("SAELens' AuxK", "ours with AuxK", 1.01),
    ]
    title += ": explained variance, the more the better"
    report(measured(title, samples, claims, unit=""))


def coded(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(model.encode(x))


@pytest.mark.parametrize("kind", ["TopK", "L1", "JumpReLU"])
@pytest.mark.parametrize("size", SIZES)
def test_speed(options: Any, report: Callable[[Any], None], size: str, kind: str):
    """The same steps, in turns. The first turn, which compiles, does not count."""
    data = made(*SIZES[size])
    sae = theirs(kind, data)
    model, steps = ours(kind, data, sae), max(1, options.steps // 5)
    mine, rival = f"{kind} by fit", "SAELens' trainer"
    turns = {
        mine: partial(trained_ours, model, data.train, steps),
        rival: partial(trained_theirs, sae, data.train, steps),
    }
    samples = interleaved(turns, options.rounds // 6 + 1)
    bar = {("jax", "small"): 0.7, ("jax", "large"): 0.9}.get((BACKEND, size))
    bar = 1.1 if BACKEND == "tensorflow" else bar
    title = f"{kind}, {size}, {steps:,} steps of {BATCH} rows"
    report(measured(title, samples, [Claim(mine, rival, bar)]))
