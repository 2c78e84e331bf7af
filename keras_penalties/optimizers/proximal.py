"""Exact zeros: a proximal step after each step of another optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from keras_penalties import compat
from keras_penalties.compiling import fused, may_compile, pays_to_fuse
from keras_penalties.hosting.state import Pass
from keras_penalties.hosting.term import Term
from keras_penalties.numerics import widened
from keras_penalties.optimizers.assignment import Assigned
from keras_penalties.optimizers.base import PenaltyOptimizer
from keras_penalties.optimizers.preconditioners import preconditioner_of
from keras_penalties.optimizers.wrapper import assign_with_zeros
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Proximal(PenaltyOptimizer):
    """Another optimizer, each step followed by the penalties' proximal maps.

    The loss goes down by its gradient, the penalty by its proximal map, so that zeros
    are exact and a point where the training stops is a minimiser of loss + penalty:

    `x ← prox(x − D·m, strength·D)`

    with the inner optimizer's step `D·m`, D its learning rate per weight: a number for
    SGD, one per entry for Adam and its kin (`optimizers/preconditioners.py` has each).

    Order: gradients accumulated and clipped, weight decay, inner step, **proximal
    map**, moving average, constraint. So the constraint is applied last, and the moving
    average is taken over penalised weights. Where a weight becomes zero, the average
    becomes zero too, so that both have the same zeros. Under gradient accumulation the
    map is taken on the real steps only.

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

    proximal = True

    def __init__(
        self, inner: Any, penalties: Mapping[str, Any], name: str | None = None
    ) -> None:
        super().__init__(inner, penalties, name)
        self._preconditioner = preconditioner_of(self.inner)
        compat.around_update(self.inner, self._around_update)

    @property
    def per_entry(self) -> bool:
        """Whether the inner optimizer has a step size for each entry."""
        return self._preconditioner.per_entry

    def _build_steps(self, variables: Sequence[Any]) -> None:
        for index in self._assigned:
            self._preconditioner.build(variables[index])

    def assigned(self, variables: Sequence[Any]) -> list[tuple[Any, Assigned]]:
        """Those of these weights that are penalised, each with its penalty."""
        found = [(v, compat.index_of(self.inner, v)) for v in variables]
        return [(v, self._assigned[i]) for v, i in found if i in self._assigned]

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
        penalised = self.assigned(variables)
        steps = []
        for variable, assigned in penalised:
            x = widened(variable)
            start = ops.copy(x) if assigned.shortens else None
            now = Pass(self.state, self.iterations, True, assigned.terms)
            present = [self._present(now, term, x) for term in assigned.terms]
            penalty = self.anchors.together(assigned.penalty, assigned.terms, x)
            before = self._preconditioner.before(variable)
            steps.append((variable, assigned, penalty, start, before, present))

        def step() -> None:
            update()
            for variable, assigned, penalty, start, before, present in steps:
                moved, size = self._stepped(
                    variable, assigned, start, before, rate, present
                )
                ts = [size * strength for strength in present]
                new = penalty.prox_parts(moved, ts)
                assign_with_zeros(self.inner, variable, new)

        large = any(map(pays_to_fuse, gradients)) and not compat.replicated()
        whole = large and any(assigned.penalty.fuses for _, assigned in penalised)
        (fused(step) if whole and may_compile() else step)()

    def _present(self, now: Pass, term: Term, x: Tensor) -> Tensor:
        """The strength for the step from `x`, by which a strength that adapts moves."""
        strength = now.strengths[term]
        if term.strength.adapts:
            value = term.value(x, self.anchors.penalty(term, x))
            strength = now.steered(term, x, ops.cast(value, strength.dtype))
        return ops.cast(strength, x.dtype)

    def _stepped(
        self,
        variable: Any,
        assigned: Assigned,
        start: Tensor | None,
        before: Tensor | None,
        rate: Tensor,
        strengths: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The weight after the step, and the step size of its map.

        From `start`, the weight before the step, a shorter step may be taken.
        """
        stepped = widened(variable)
        rate = ops.cast(rate, stepped.dtype)
        size = self._preconditioner.step_size(variable, rate, before)
        if start is not None:
            full, size = size, assigned.shortened(size, strengths)
            share = ops.where(full > 0, size / full, ops.ones_like(full))
            stepped = start + share * (stepped - start)
        return stepped, size
