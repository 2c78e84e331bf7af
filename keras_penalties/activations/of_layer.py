"""The stream of a layer's outputs on a dataset."""

from __future__ import annotations

from typing import Any

import keras

from keras_penalties import checks
from keras_penalties.activations.datasets import Inputs
from keras_penalties.activations.outputs import LayerOutputs
from keras_penalties.activations.stream import ActivationStream


def activations(
    model: keras.Model,
    layer: keras.layers.Layer | str,
    dataset: Any,
    *,
    batch_size: int = 256,
    buffer_size: int = 16_384,
    seed: int | None = None,
    targets: bool = True,
    drop_remainder: bool = True,
    batches_per_epoch: int | None = None,
    rows_per_sample: int | None = None,
    samples_per_call: int = 32,
    call: int | None = None,
    axis: int = -1,
    dtype: str = "float32",
) -> ActivationStream:
    """A layer's outputs on a dataset, as batches that an autoencoder's `fit` takes.

    The model runs batch by batch while the stream is read, in inference mode, and
    nothing in it changes. All axes of the output except the first and the one of the
    features, such as tokens and pixels, become rows too. Rows that the layer's mask
    leaves out are dropped. In memory are the buffer, a few batches and one batch of the
    layer's outputs, however large the dataset is.

    Args:
        model: Any built model, also a subclassed one, or one with models inside.
        layer: A layer of the model, its name, or its address: the names of layers from
            the top down, `"block/dense"`, or the end of an address from a `/` on.
        dataset: What the model runs on, as `predict` takes it: arrays (a structure as
            the model's inputs), a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch
            `DataLoader`, another iterable of batches, or a function that makes a
            generator of batches. Of a batch `(x, y)` or `(x, y, weights)` x is used.
        batch_size: Rows of a batch. Default 256.
        buffer_size: How many rows are mixed. Draws from more rows are better mixed:
            let the buffer hold the rows of many samples. 0 keeps the order of the
            dataset. Default 16384.
        seed: The same seed gives the same batches. Default None: drawn by Python's
            `random`, which `keras.utils.set_random_seed` sets.
        targets: Batches are `(x, x)`, as an autoencoder is trained. False: `(x,)`.
        drop_remainder: Leave out the last batch of a pass if it is smaller. Default
            True.
        batches_per_epoch: Where an epoch ends. Needed for a dataset without an end. The
            next epoch goes on from there. Default None: an epoch is one pass over the
            dataset. To know its length, `fit` counts the dataset once; the model runs
            for that only if the layer has a mask.
        rows_per_sample: How many rows at most to draw by chance from each sample (an
            image, a text). Default None: all.
        samples_per_call: How many samples of arrays the model takes at once. Default
            32. Other datasets come in batches of their own.
        call: Which call of the layer, from 0, where the model calls it several times.
        axis: The axis of the features in the layer's output. Default -1; 1 for layers
            with `data_format="channels_first"`.
        dtype: `"float32"` (default) or `"float16"`.

    Returns:
        The stream, a `keras.utils.PyDataset`. Its `save` writes the rows to a disk.

    Raises:
        ValueError: if the model is not built, has no such layer or does not call it,
            calls it several times without `call` given, or the layer's output is not
            one tensor of rank 2 or more; the dataset is empty, has no end without
            `batches_per_epoch` given, or can be read only once; or another argument is
            out of range.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv])
        >>> images = np.random.default_rng(0).random((10, 8, 8, 1))
        >>> stream = kp.activations(model, "conv", images, batch_size=64)
        >>> len(stream), stream.features  # 10 images of 6 × 6 rows
        (5, 4)
        >>> layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(4)]
        >>> autoencoder = keras.Sequential([keras.Input((4,)), *layers])
        >>> autoencoder.compile("adam", "mse")
        >>> history = autoencoder.fit(stream, epochs=2, verbose=0)
    """
    if rows_per_sample is not None:
        rows_per_sample = checks.integer("rows_per_sample", rows_per_sample)
    if call is not None:
        call = checks.integer("call", call, low=0)
    inputs = Inputs(dataset, checks.integer("samples_per_call", samples_per_call))
    if batches_per_epoch is None and inputs.endless:
        checks.refuse(
            "batches_per_epoch", "a number, since the dataset has no end", None
        )
    source = LayerOutputs(
        model,
        layer,
        inputs,
        call=call,
        axis=checks.integer("axis", axis, low=-32),
        rows_per_sample=rows_per_sample,
        dtype=checks.one_of("dtype", dtype, ("float32", "float16")),
    )
    return ActivationStream(
        source,
        batch_size,
        buffer_size,
        seed,
        targets,
        drop_remainder,
        batches_per_epoch,
    )
