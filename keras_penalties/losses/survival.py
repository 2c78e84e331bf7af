"""Time to an event, with censoring."""

from __future__ import annotations

from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import BatchLoss, LossOptions
from keras_penalties.losses.shapes import agree, refuse_shapes
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class CoxPartialLikelihood(BatchLoss):
    """Cox's negative log partial likelihood of a log risk η, with right censoring.

    For a sample i with an event: `log Σⱼ exp(ηⱼ) − ηᵢ` over the samples j still at
    risk, `timeⱼ ≥ timeᵢ`; 0 for a censored one. Adding a constant to all η changes
    nothing.

    A statistic of the batch: a sample is compared with its batch only, so batches must
    be large, and two half batches do not add up to the whole. `reduction="sum"` over
    one batch of all data is the partial likelihood itself; the default divides it by
    the batch size, censored samples included. `sample_weight` multiplies a sample's own
    term; the sample is at risk beside the others, whatever its weight, except for 0.
    What is masked, unknown or has the weight 0 is absent, as if it were not in the
    batch. The memory is batch².

    Args:
        ties: `"efron"` or `"breslow"`, for events at one time. Breslow has them all at
            risk for each of them; Efron, who comes nearer to the exact likelihood,
            reduces their share of the risk one event after the other. Default
            `"efron"`.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` (batch, 2), the time and whether there was an event (1) or the
    sample was censored then (0). Whole numbers of any size are compared exactly if they
    come as integers. `y_pred`, the log risk, (batch, 1) or (batch,). The result is
    (batch,).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.CoxPartialLikelihood(reduction="sum")
        >>> times_and_events = np.array([[1.0, 1.0], [2.0, 0.0]])
        >>> round(float(loss(times_and_events, np.zeros((2, 1)))), 4)
        0.6931

    Raises:
        ValueError: if `ties` is neither, or the shapes are others.

    Source: Cox, "Partial Likelihood", 1975; Breslow, "Covariance Analysis of Censored
    Survival Data", 1974; Efron, "The Efficiency of Cox's Likelihood Function for
    Censored Data", 1977.
    """

    exact_targets = True

    def __init__(self, ties: str = "efron", **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.ties = checks.one_of("ties", ties, ("efron", "breslow"))

    def call(self, y_true: Tensor, y_pred: Tensor, present: Tensor = None) -> Tensor:
        """One value per sample, 0 where it was censored."""
        risk = _log_risk(y_true, y_pred)
        time, event = y_true[:, 0], ops.cast(y_true[:, 1], risk.dtype)
        at_risk = ops.expand_dims(time, 0) >= ops.expand_dims(time, 1)
        if present is not None:
            event = event * ops.cast(present, event.dtype)
            # Each is at risk beside itself, so that no sum of risks is empty.
            itself = ops.eye(ops.shape(time)[0], dtype="bool")
            at_risk = ops.logical_and(at_risk, ops.logical_or(present, itself))
        weights = ops.cast(at_risk, risk.dtype)
        if self.ties == "breslow":
            return event * (_log_sum(weights, risk) - risk)
        tied = ops.cast(
            ops.expand_dims(time, 0) == ops.expand_dims(time, 1), risk.dtype
        )
        tied = tied * ops.expand_dims(event, 0)
        among = ops.sum(tied, axis=1)
        among = ops.where(among > 0, among, ops.ones_like(among))
        # The k-th of d tied events: each of them is at risk by 1 - k/d.
        place = ops.sum(ops.tril(tied, k=-1), axis=1)
        shrunk = weights - tied * ops.expand_dims(place / among, 1)
        log_sums = event * _log_sum(shrunk, risk)
        # They happened at once: each gets the mean of their terms, in whatever order.
        shared = ops.sum(tied * ops.expand_dims(log_sums, 0), axis=1) / among
        return event * (shared - risk)

    @classmethod
    def examples(cls) -> list[Self]:
        """Both treatments of ties."""
        return [cls(), cls("breslow")]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times with ties, events and log risks."""
        time, event = rng.integers(1, 4, batch), rng.integers(0, 2, batch)
        return np.stack([time, event], axis=1), rng.normal(size=(batch, 1))


def _log_risk(y_true: Tensor, y_pred: Tensor) -> Tensor:
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if len(pred_shape) == 2 and pred_shape[1] == 1:
        y_pred = ops.squeeze(y_pred, 1)
    fits = len(y_pred.shape) == 1 and agree(true_shape, (*y_pred.shape, 2))
    if not fits:
        wanted = "y_true (batch, 2), of time and event, and y_pred (batch, 1)"
        refuse_shapes(wanted, true_shape, pred_shape)
    return y_pred


def _log_sum(weights: Tensor, logs: Tensor) -> Tensor:
    """`log Σⱼ weightsᵢⱼ·exp(logsⱼ)`, where each row has a weight above 0."""
    counted, logs = weights > 0, ops.expand_dims(logs, 0)
    highest = ops.where(counted, logs, -float("inf"))
    highest = ops.stop_gradient(ops.max(highest, 1, True, -float("inf")))
    below = ops.where(counted, logs - highest, ops.zeros_like(weights))
    sums = ops.sum(weights * ops.exp(below), axis=1)
    return ops.log(sums) + ops.squeeze(highest, 1)
