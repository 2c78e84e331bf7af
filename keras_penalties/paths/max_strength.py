"""The smallest strength that makes a whole weight zero: the lasso's λ_max."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.autodiff import gradient
from keras_penalties.compiling import compiled
from keras_penalties.datasets import Batch, batches, samples_of
from keras_penalties.numerics import joined
from keras_penalties.paths.batch_loss import State, batch_loss, state_of
from keras_penalties.paths.zeroing import Array, zeroing_terms
from keras_penalties.typing import Tensor

__all__ = ["max_strength"]


def max_strength(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """The smallest strength that makes a weight zero, for each rule of `Proximal`.

    With g the gradient of the loss where this one weight is zero and all others are as
    they are, it is the smallest strength for which `prox(−t·g, t·strength) = 0`: zero
    is then a point where the training rests. For L1 that is max|g|, for the group lasso
    the largest norm of a group of g, for the nuclear norm the spectral norm of g. It is
    found by bisection, to the precision of float32, so that it serves every penalty and
    every sum of penalties. It takes one pass over the data for each penalised weight,
    in inference mode, and changes nothing in the model.

    - At this strength itself rounding decides whether training reaches zero: go on to
      1.01 times it.
    - The other weights count as they are. For a lasso with an intercept give the bias
      its best value without the kernel first: for `"mse"` the mean of `y`.
    - In a chain of layers a layer of zeros has no gradient to its neighbours, so each
      weight is made zero alone. Where penalised weights act side by side and are to be
      zero together, assign zeros to them before the call.
    - The step that training takes does not matter, except for a penalty such as `Lp`,
      whose slope at zero is infinite: zero is a point of rest for each strength.

    Args:
        model: A built model, compiled with `Proximal`.
        x: As `fit` takes it: arrays, or a dataset that has an end, such as a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`.
        y: The targets; None where a dataset brings them.
        sample_weight: A weight for each sample. Default None.
        batch_size: How many samples of arrays make a batch. Default 32. It changes the
            result only for a loss that is a sum over the batch.

    Returns:
        A strength by the name of each term, as `terms(model)` gives it. Left out are
        those that no finite strength makes zero, such as L2 and constraints, and `Lp`.

    Raises:
        ValueError: if `Proximal` has no rule that makes zeros, the gradient is not
            finite, or the data are none.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> line = keras.layers.Dense(1, use_bias=False)
        >>> model = keras.Sequential([keras.Input((2,)), line], name="net")
        >>> model.compile(kp.optimizers.Proximal("sgd", {"kernel": "l1(0.1)"}), "mse")
        >>> x, y = np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([[1.0], [3.0]])
        >>> list(kp.max_strength(model, x, y).values())  # max|2·xᵀy/n|
        [6.0]

    Source: Friedman, Hastie and Tibshirani, "Regularization Paths for Generalized
    Linear Models via Coordinate Descent", 2010.
    """
    size = checks.integer("batch_size", batch_size)
    slope = _compiled_slope(model)
    slopes: dict[int, Array] = {}
    found: dict[str, float] = {}
    for rule in zeroing_terms(model):
        key = id(rule.weight)
        if key not in slopes:
            data = batches(x, y, sample_weight, size)
            slopes[key] = _slope_at_zero(model, rule.weight, slope, data)
        if not np.all(np.isfinite(slopes[key])):
            path = rule.weight.path
            checks.refuse("x", f"data with a finite gradient at '{path}' = 0", x)
        if (strength := rule.smallest(slopes[key])) is None:
            expected = f"a rule that lets '{rule.weight.path}' be zero"
            checks.refuse("model", expected, rule.penalty)
        found[rule.name] = strength
    return found


def _compiled_slope(model: Any) -> Callable[[Tensor, State, Batch], Tensor]:
    loss = batch_loss(model)
    return compiled(
        lambda vector, state, batch: gradient(lambda v: loss(v, state, batch), vector)
    )


def _slope_at_zero(
    model: Any,
    weight: Any,
    slope: Callable[[Tensor, State, Batch], Tensor],
    data: Iterable[Batch],
) -> Array:
    """The mean gradient over the data, in a weight that is zero while others are not.

    A batch counts by its size, as the batches of an epoch add up to a mean.
    """
    weights = model.trainable_variables
    index = next(i for i, w in enumerate(weights) if w is weight)
    values = [ops.convert_to_tensor(w) for w in weights]
    values[index] = ops.zeros_like(values[index])
    vector, state = joined(values), state_of(model)
    start = sum(math.prod(w.shape) for w in weights[:index])
    part = slice(start, start + math.prod(weight.shape))
    total, count = np.zeros(weight.shape), 0
    for batch in data:
        size = samples_of(batch[0])
        whole = ops.convert_to_numpy(slope(vector, state, batch))
        total += size * whole[part].reshape(weight.shape)
        count += size
    if not count:
        checks.refuse("x", "at least one sample", data)
    return total / count
