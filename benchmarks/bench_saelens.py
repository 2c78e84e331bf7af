"""A ReLU autoencoder with an L1 on its code, on digits: ours, and SAELens' trainer.

Sizes, steps and optimizer are the same. SAELens' L1 is weighted by the decoder's norms,
so the objectives are similar, not equal. `pip install sae-lens` first.
"""

from __future__ import annotations

import itertools
from functools import partial

import keras
import pytest
from harness import Claim, interleaved, measured
from keras.layers import Dense
from sklearn.datasets import load_digits
from steps import BACKEND

import keras_penalties as kp
from keras_penalties.demo import STEPS, FullBatches

STRENGTH, RATE = 0.01, 1e-3


def ours(x, hidden, steps):
    """A functional model by plain `fit`."""
    inputs = keras.Input(x.shape[1:])
    code = kp.layers.ActivityPenalty(kp.penalties.L1(STRENGTH))(
        Dense(hidden, activation="relu")(inputs)
    )
    model = keras.Model(inputs, Dense(x.shape[1])(code))
    epoch = min(STEPS, steps)
    model.compile(
        keras.optimizers.Adam(RATE),
        "half_sum_squared_error",
        steps_per_execution=1 if BACKEND == "torch" else epoch,
    )
    model.fit(FullBatches(x, epoch), epochs=steps // epoch, verbose=0)


def theirs(x, hidden, steps):
    """SAELens' standard autoencoder by its own trainer."""
    import torch
    from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    shape = {"d_in": x.shape[1], "d_sae": hidden}
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=steps * len(x),
            train_batch_size_samples=len(x),
            lr=RATE,
            lr_end=RATE,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=StandardTrainingSAE(
            StandardTrainingSAEConfig(**shape, l1_coefficient=STRENGTH)
        ),
        data_provider=itertools.repeat(torch.tensor(x)),
    )
    trainer.fit()


def test_saelens(options, report):
    pytest.importorskip("sae_lens", reason="SAELens is not installed")
    x = (load_digits().data[: options.samples] / 16.0).astype("float32")
    args = x, options.hidden, options.steps
    mine, rival = "ReLU autoencoder by fit", "SAELens' trainer"
    turns = {mine: partial(ours, *args), rival: partial(theirs, *args)}
    theirs(x, options.hidden, 1)  # its imports
    samples = interleaved(turns, options.runs, warmups=0)
    title = f"A ReLU autoencoder, {options.steps:,} steps"
    report(measured(title, samples, [Claim(mine, rival)]))
