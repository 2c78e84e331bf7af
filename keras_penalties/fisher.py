"""How much a trained model's loss depends on each weight: the Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.autodiff import gradient
from keras_penalties.compiling import compiled
from keras_penalties.datasets import as_tensor, endless, one_epoch, samples_of
from keras_penalties.hosting.addresses import own_path
from keras_penalties.numerics import joined, parted
from keras_penalties.typing import Tensor

__all__ = ["fisher"]


def fisher(model: keras.Model, data: Any, loss: Any = None) -> dict[str, np.ndarray]:
    """The diagonal of the empirical Fisher information, of each trained weight.

    For each trained weight `mean over samples of (∂loss(sample) / ∂weight)²`, entry by
    entry, of the data loss without any penalty, and with the model in inference mode.
    It is the Fisher information where the loss is a negative log-likelihood: a
    cross-entropy, or `half_sum_squared_error` for a variance of 1. Elastic weight
    consolidation weighs each weight's distance from its reference with it. It takes one
    backward pass for each sample, so give some hundred samples rather than all.

    Args:
        model: A model that is built, and compiled with a loss unless `loss` is given.
        data: A batch `(x, y)` of arrays, or an iterable of such batches, such as a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`.
        loss: The loss `(y_true, y_pred)`: an object, a function or a string. Default
            None: the one that the model was compiled with.

    Returns:
        An array for each trained weight, the `weights` of a `ToReference`, by the
        weight's path without the model's own name: a key of `kp.penalize`.

    Raises:
        ValueError: if the model is not built, there is no one loss for all of its
            outputs, or `data` has no samples or more than x and y in a batch.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> line = keras.layers.Dense(1, "linear", False, "ones", name="line")
        >>> model = keras.Sequential([keras.Input((2,)), line])
        >>> x, y = np.array([[1.0, 0.0], [2.0, 1.0]]), np.zeros((2, 1))
        >>> found = kp.fisher(model, (x, y), loss="half_sum_squared_error")
        >>> [round(float(f), 3) for f in found["line/kernel"].ravel()]
        [18.5, 4.5]

    Source: Kirkpatrick et al., "Overcoming Catastrophic Forgetting in Neural Networks",
    2017.
    """
    checks.instance("model", model, keras.Model)
    if not model.built:
        checks.refuse("model", "a built model: call it, fit it or `build` it", model)
    weights = list(model.trainable_variables)
    squares = _squares_of(model, _loss_of(model, loss))
    vector = joined(weights)
    state = [ops.convert_to_tensor(v) for v in model.non_trainable_variables]
    total, count = np.zeros(vector.shape), 0
    for x, y in _samples(data):
        total += ops.convert_to_numpy(squares(vector, state, x, y))
        count += 1
    if not count:
        checks.refuse("data", "at least one sample", data)
    means = np.split(total / count, np.cumsum([ops.size(w) for w in weights])[:-1])
    return {
        own_path(model, w.path): mean.reshape(w.shape).astype("float32")
        for w, mean in zip(weights, means, strict=True)
    }


def _loss_of(model: Any, loss: Any) -> Callable[[Any, Any], Tensor]:
    given = getattr(model, "loss", None) if loss is None else loss
    if given is None or isinstance(given, dict | list | tuple):
        checks.refuse("loss", "one loss for all outputs of the model", given)
    found = keras.losses.get(given)
    return lambda y, predicted: ops.sum(found(y, predicted))


def _squares_of(
    model: Any, loss: Callable[[Any, Any], Tensor]
) -> Callable[..., Tensor]:
    """The squared gradient of one sample's loss, compiled once."""

    def squares(vector: Tensor, state: list[Tensor], x: Any, y: Any) -> Tensor:
        still = list(zip(model.non_trainable_variables, state, strict=True))

        def value(vector: Tensor) -> Tensor:
            weights = model.trainable_variables
            moved = list(zip(weights, parted(vector, weights), strict=True))
            with keras.StatelessScope([*moved, *still]):
                return ops.cast(loss(y, model(x, training=False)), vector.dtype)

        return ops.square(gradient(value, vector))

    return compiled(squares)


def _samples(data: Any) -> Iterator[tuple[Any, Any]]:
    """Batches of one sample."""
    if not isinstance(data, tuple):
        checks.instance("data", data, (Iterable, keras.utils.PyDataset))
        if endless(data):
            checks.refuse("data", "a dataset that has an end", data)
    for batch in [data] if isinstance(data, tuple) else one_epoch(data):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            checks.refuse("data", "a batch `(x, y)`, or an iterable of such", batch)
        x, y = (keras.tree.map_structure(as_tensor, z) for z in batch)
        for i in range(samples_of(x)):
            yield tuple(
                keras.tree.map_structure(lambda t, i=i: t[i : i + 1], z) for z in (x, y)
            )
