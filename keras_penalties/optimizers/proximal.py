"""Exact zeros: a proximal step after each step of another optimizer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, compat, config
from keras_penalties import penalties as penalty_names
from keras_penalties.layers.base import Term
from keras_penalties.numerics import Tensor, widened
from keras_penalties.optimizers.metrics import metric_of
from keras_penalties.optimizers.wrapper import Wrapper
from keras_penalties.penalties.base import Penalty
from keras_penalties.registry import register


class Host:
    """The penalty on one weight, and the terms that it is the sum of."""

    def __init__(self, penalty: Penalty, path: str, per_entry: bool) -> None:
        self.penalty = penalty
        self.terms = [
            Term(f"{path.replace('/', '_')}_{part.name}", part, path)
            for part in penalty.parts()
        ]
        self._one_size = per_entry and not penalty.per_entry
        self._limited = 0.0 < penalty.concavity < math.inf
        self.shortens = self._one_size or self._limited
        """Whether a step may have to be made shorter for this penalty."""

    def shortened(self, size: Tensor, strengths: Sequence[Tensor]) -> Tensor:
        """The step sizes that the proximal map can go with."""
        if self._one_size:  # 1/size² is a second moment: take its mean
            least = ops.min(size)
            spread = ops.where(size > 0, least / size, ops.ones_like(size))
            size = least / ops.sqrt(ops.mean(ops.square(spread)))
        if self._limited:  # to half of where the map begins to jump
            pairs = zip(strengths, self.terms, strict=True)
            bend = sum(s * term.penalty.concavity for s, term in pairs)
            excess = 2.0 * bend * size
            size = size / ops.where(excess > 1, excess, ops.ones_like(excess))
        return size


@register
class Proximal(Wrapper):
    """Another optimizer, each step followed by the penalties' proximal maps.

    The loss goes down by its gradient, the penalty by its proximal map, so that zeros
    are exact and a point of rest is a minimiser of loss + penalty:

    `x ← prox(x − D·m, strength·D)`

    with the inner optimizer's step `D·m`, D its learning rate per weight: a number for
    SGD, one per entry for Adam and its kin (`optimizers/metrics.py` has each).

    Order: gradients accumulated and clipped, weight decay, inner step, **proximal
    map**, moving average, constraint. So a constraint has the last word, and the moving
    average is one of penalised weights; it forgets an entry that becomes zero, so that
    the averaged weights have the same zeros. Under gradient accumulation the map is
    taken on the real steps only.

    A penalty whose map can't take one t per entry (`Penalty.per_entry`: the spectral
    ones, the ordered, the fused) makes an adaptive optimizer take one step size for
    that whole weight, from its mean second moment. A non-convex one limits the step
    size to where its map does not jump (`Penalty.concavity`). Both leave the points of
    rest where they are.

    Args:
        inner: The optimizer that follows the loss: an object, a string or a config.
            SGD, Adam, AdamW, Nadam, Adamax, RMSprop, Adagrad or Adadelta, with all that
            they do: schedules, clipping, weight decay, averages, accumulation. A
            `LossScaleOptimizer` goes outside: `LossScaleOptimizer(Proximal(...))`.
        penalties: Which penalty on which weights: `{pattern: penalty}`. A pattern is a
            regular expression for the whole `variable.path` or for its end, from a `/`
            on: `"encoder/kernel"` is also `"model/encoder/kernel"`, and never
            `"my_encoder/kernel"`; `"encoder/.*"` is all that lies in `encoder`. A
            penalty may be a string, such as `"l1(0.001)"`, or a config. Its strength
            may be a schedule over the steps that this optimizer took.
        name: For logs. Default `"proximal"`.

    Raises:
        ValueError: if the step of `inner` has no known metric; a penalty has no
            proximal map or is a statistic of a batch; a pattern fits no weight that is
            trained; two fit the same weight; or a weight has a regularizer too.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> model = keras.Sequential([keras.layers.Dense(1, name="line")])
        >>> inner = keras.optimizers.SGD(0.1)
        >>> sparse = kp.optimizers.Proximal(inner, {"kernel": "l1(1.0)"})
        >>> model.compile(sparse, loss="mse")
        >>> x = np.array([[1.0, 0.1], [-1.0, 0.1]])
        >>> _ = model.fit(x, 3.0 * x[:, :1], epochs=50, verbose=0)
        >>> [round(float(w[0]), 3) for w in model.get_weights()[0]]
        [2.5, 0.0]

    Source: Yun, Lozano and Yang, "Adaptive Proximal Gradient Methods for Structured
    Neural Networks", 2021.
    """

    def __init__(
        self, inner: Any, penalties: Mapping[str, Any], name: str | None = None
    ) -> None:
        super().__init__(inner, name)
        self.penalties = _checked(penalties)
        self.terms: tuple[Term, ...] = ()
        self._metric = metric_of(self.inner)
        compat.around_update(self.inner, self._around_update)

    def build(self, variables: Sequence[Any]) -> None:
        """Find the penalised weights; create the strengths and the inner state."""
        if self.built:
            return
        self._hosted = {
            index: Host(penalty, path, self._metric.per_entry)
            for index, (path, penalty) in _matched(self.penalties, variables).items()
        }
        self.terms = tuple(t for host in self._hosted.values() for t in host.terms)
        strengths = [t.penalty.strength for t in self.terms]
        start = np.array([s if isinstance(s, float) else 0.0 for s in strengths])
        self.strengths = self.add_variable(
            shape=start.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            dtype="float64" if keras.config.floatx() == "float64" else "float32",
            aggregation="only_first_replica",
            name="strengths",
        )
        super().build(variables)
        for index in self._hosted:
            self._metric.build(variables[index])

    def strength(self, term: Term) -> Tensor:
        """The term's strength at the present step."""
        if isinstance(term.penalty.strength, float):
            return self.strengths[self.terms.index(term)]
        return ops.cast(term.penalty.strength(self.iterations), self.strengths.dtype)

    def _around_update(
        self, update: Callable[[], None], variables: Sequence[Any], rate: Any
    ) -> None:
        """The inner optimizer's own update of these weights, then their maps."""
        found = [(v, compat.index_of(self.inner, v)) for v in variables]
        hosted = [(v, self._hosted[i]) for v, i in found if i in self._hosted]
        states = [self._metric.before(v) for v, _ in hosted]
        starts = [ops.copy(v) if host.shortens else None for v, host in hosted]
        update()
        for (variable, host), state, start in zip(hosted, states, starts, strict=True):
            stepped = widened(ops.copy(variable))
            rate = ops.cast(rate, stepped.dtype)
            size = self._metric.step_size(variable, rate, state)
            self._take_map(variable, host, stepped, size, start)

    def _take_map(
        self, variable: Any, host: Host, stepped: Tensor, size: Tensor, start: Any
    ) -> None:
        """The proximal map of one weight, in the metric of the step just taken."""
        strengths = [ops.cast(self.strength(t), stepped.dtype) for t in host.terms]
        if host.shortens:  # the step is taken again, shorter, from where it began
            full, size = size, host.shortened(size, strengths)
            share = ops.where(full > 0, size / full, ops.ones_like(full))
            stepped = start + share * (stepped - start)
        new = host.penalty.prox_parts(stepped, [size * s for s in strengths])
        self.inner.assign(variable, ops.cast(new, variable.dtype))
        if self.inner.use_ema:
            average = compat.optimizer_state(
                self.inner, "_model_variables_moving_average", variable
            )
            kept = ops.cast(new != 0, average.dtype)
            self.inner.assign(average, kept * average)

    def get_config(self) -> dict[str, Any]:
        """The arguments, nested objects included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "inner": compat.portable_optimizer(serialize(self.inner)),
            "penalties": {
                p: serialize(penalty) for p, penalty in self.penalties.items()
            },
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config_: dict[str, Any], custom_objects: Any = None) -> Self:
        """The optimizer that `get_config` described."""
        with keras.saving.custom_object_scope(custom_objects or {}):
            optimizer: Self = config.from_config(cls, config_)
        return optimizer


def _checked(penalties: Any) -> dict[str, Penalty]:
    if not isinstance(penalties, Mapping) or not penalties:
        checks.refuse("penalties", "a dict of {pattern: penalty}, not empty", penalties)
    found = {p: penalty_names.get(given) for p, given in penalties.items()}
    for pattern, penalty in found.items():
        _check_pattern(pattern)
        if any(part.statistic for part in penalty.parts()):
            checks.refuse("penalties", "penalties of a weight, no statistics", penalty)
        if not penalty.has_prox:
            checks.refuse("penalties", "penalties with a proximal map", penalty)
    return found


def _check_pattern(pattern: Any) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError):
        checks.refuse("penalties", "regular expressions for keys", pattern)


def _matched(
    penalties: Mapping[str, Penalty], variables: Sequence[Any]
) -> dict[int, tuple[str, Penalty]]:
    """The path and the penalty of each weight that has one, by the weight's index."""
    found: dict[int, tuple[str, Penalty]] = {}
    paths = [v.path for v in variables]
    for pattern, penalty in penalties.items():
        fitting = [
            i for i, p in enumerate(paths) if re.fullmatch(f"(.*/)?({pattern})", p)
        ]
        if not fitting:
            checks.refuse(
                "penalties",
                f"patterns that fit one of the trained weights {paths}",
                pattern,
            )
        for i in fitting:
            if i in found:
                checks.refuse(
                    "penalties", f"one pattern only that fits '{paths[i]}'", pattern
                )
            _check_fits(variables[i], penalty)
            found[i] = (paths[i], penalty)
    return found


def _check_fits(variable: Any, penalty: Penalty) -> None:
    if variable.regularizer is not None:
        checks.refuse(
            "penalties",
            f"weights without a regularizer of their own, and '{variable.path}' has "
            f"{variable.regularizer}",
            penalty,
        )
    if len(variable.shape) < penalty.rank:
        checks.refuse(
            "penalties",
            f"for '{variable.path}', of shape {tuple(variable.shape)}, a penalty of "
            f"rank {len(variable.shape)} at most",
            penalty,
        )
