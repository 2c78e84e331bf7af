"""Exact zeros: a proximal step after each step of another optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import compat, config
from keras_penalties.compiling import fused, pays_to_fuse
from keras_penalties.hosting.state import Pass, TermState
from keras_penalties.hosting.term import Term
from keras_penalties.numerics import widened
from keras_penalties.optimizers.assignment import Assigned, checked, matched
from keras_penalties.optimizers.preconditioners import preconditioner_of
from keras_penalties.optimizers.wrapper import Wrapper
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


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

    A penalty whose map can't take one t per entry (`Penalty.per_entry`; the spectral
    ones and `SortedL1` among them) makes an adaptive optimizer take one step size for
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
            may be a schedule, over the steps that this optimizer took, or a `Target` of
            the kind `"<="`, measured on the weight before each step.
        name: For logs. Default `"proximal"`.

    Raises:
        ValueError: if the step of `inner` has no known metric; a penalty has no
            proximal map or is a statistic of a batch; a pattern fits no weight that is
            trained; two fit the same weight; or a weight has a regularizer too, or a
            penalty of the same kind from `layers.Penalized`.

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
        self.penalties = checked(penalties)
        self.terms: tuple[Term, ...] = ()
        self._preconditioner = preconditioner_of(self.inner)
        compat.around_update(self.inner, self._around_update)

    def build(self, variables: Sequence[Any]) -> None:
        """Find the penalised weights; create the inner state and the strengths."""
        if self.built:
            return
        self._assigned = matched(
            self.penalties, variables, self._preconditioner.per_entry
        )
        self.terms = tuple(t for a in self._assigned.values() for t in a.terms)
        super().build(variables)
        for index in self._assigned:
            self._preconditioner.build(variables[index])
        self.state = TermState(self.terms, self.inner.assign)
        start = self.state.initial()
        # The inner optimizer's own, so that whatever takes its step back, as loss
        # scaling does, takes the strengths back too.
        strengths = self.inner.add_variable(
            shape=start.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            dtype="float64" if keras.config.floatx() == "float64" else "float32",
            aggregation="only_first_replica",
            name="strengths",
        )
        self.state.hold(strengths, {})

    def present_strength(self, term: Term) -> Tensor:
        """The term's strength at the present step; of a target, the multiplier."""
        return self.state.strength(term, self.iterations)

    def _around_update(
        self,
        update: Callable[[], None],
        gradients: Sequence[Any],
        variables: Sequence[Any],
        rate: Any,
    ) -> None:
        """The inner optimizer's own update of these weights, then their maps.

        On TensorFlow both together are compiled, where the weight is large: op by op
        the inner update alone takes some thirty passes over memory.
        """
        found = [(v, compat.index_of(self.inner, v)) for v in variables]
        penalised = [(v, self._assigned[i]) for v, i in found if i in self._assigned]
        steps = []
        for variable, assigned in penalised:
            x = widened(ops.copy(variable))
            now = Pass(self.state, self.iterations, True, assigned.terms)
            present = [_present(now, term, x) for term in assigned.terms]
            before = self._preconditioner.before(variable)
            steps.append((variable, assigned, x, before, present))

        def step() -> None:
            update()
            for variable, assigned, x, before, present in steps:
                moved = self._mapped(variable, assigned, x, before, rate, present)
                self._set(variable, moved)

        large = any(map(pays_to_fuse, gradients)) and not compat.replicated()
        whole = large and any(assigned.penalty.fuses for _, assigned in penalised)
        (fused(step) if whole else step)()

    def _mapped(
        self,
        variable: Any,
        assigned: Assigned,
        start: Tensor,
        before: Tensor | None,
        rate: Tensor,
        strengths: Sequence[Tensor],
    ) -> Tensor:
        """The proximal map of a weight, preconditioned as the step from `start` was."""
        size = self._preconditioner.step_size(
            variable, ops.cast(rate, start.dtype), before
        )
        stepped = widened(ops.copy(variable))
        if assigned.shortens:  # the step is taken again, shorter
            full, size = size, assigned.shortened(size, strengths)
            share = ops.where(full > 0, size / full, ops.ones_like(full))
            stepped = start + share * (stepped - start)
        return assigned.penalty.prox_parts(stepped, [size * s for s in strengths])

    def _set(self, variable: Any, new: Tensor) -> None:
        """The weight, and the zeros of its moving average."""
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


def _present(now: Pass, term: Term, x: Tensor) -> Tensor:
    """The strength for the step from `x`, by which a strength that adapts moves."""
    if not term.strength.adapts:
        return ops.cast(now.strengths[term], x.dtype)
    value = ops.cast(term.value(x), now.strengths[term].dtype)
    return ops.cast(now.steered(term, x, value), x.dtype)
