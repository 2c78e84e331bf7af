"""Penalties by their gradients, in the optimizer: for models without a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.autodiff import value_and_gradient
from keras_penalties.hosting.state import Pass
from keras_penalties.hosting.term import Term
from keras_penalties.numerics import widened
from keras_penalties.optimizers.assignment import Assigned
from keras_penalties.optimizers.base import PenaltyOptimizer
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Penalizing(PenaltyOptimizer):
    """Another optimizer that sees the penalties' gradients beside the loss's.

    `gradient ← gradient + strength·∂penalty(weight)`, before the inner optimizer clips
    and steps: a step is that of a layer which adds `strength·penalty(weight)` to the
    loss. For a model that no layer can be put into, such as a subclassed one or a task
    of KerasHub. `Proximal` is the sibling that gives exact zeros.

    The model's `loss` is the data's alone, without these terms: an optimizer does not
    compute the loss. `keras_penalties.callbacks.LogTerms` puts their values beside the
    loss in the logs.

    A model class with a `compile` of its own, as a task of KerasHub is, loses *every*
    optimizer when it is loaded, unless it has a `compile_from_config` too. `terms` and
    `LogTerms` warn of it. After loading, compile the model with the same `Penalizing`
    again. The optimizer's state is lost too: so give `ToReference` the array itself,
    not `"start"`, for a model that is trained on after loading.

    Args:
        inner: The optimizer that takes the steps: an object, a string or a config. A
            `LossScaleOptimizer` goes outside: `LossScaleOptimizer(Penalizing(...))`.
        penalties: Which penalty on which weights: `{pattern: penalty}`. A pattern is a
            regular expression for the whole `variable.path` or for its end, from a `/`
            on, as for `Proximal`. A penalty may be a string, such as `"l2(0.001)"`, or
            a config. Its strength may move by the steps that this optimizer took.
        name: For logs. Default `"penalizing"`.

    Raises:
        ValueError: if `inner` scales the loss; a penalty has no gradient or is a
            statistic of a batch; a pattern fits no weight that is trained; two fit the
            same weight; or a weight has an equal penalty elsewhere already.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> line = keras.layers.Dense(1, name="line")
        >>> model = keras.Sequential([line], name="net")
        >>> inner = keras.optimizers.SGD(0.1)
        >>> optimizer = kp.optimizers.Penalizing(inner, {"kernel": "l2(0.5)"})
        >>> model.compile(optimizer, loss="mse")
        >>> x = np.array([[1.0], [-1.0]])
        >>> _ = model.fit(x, 3.0 * x, epochs=50, verbose=0)
        >>> round(float(model.get_weights()[0][0, 0]), 3)
        2.0
        >>> print(kp.terms(model))
        term            strength  penalty  target       host       acts
        line_kernel_l2  0.5       L2       line/kernel  optimizer  yes
    """

    proximal = False

    def __init__(
        self, inner: Any, penalties: Mapping[str, Any], name: str | None = None
    ) -> None:
        super().__init__(inner, penalties, name)
        if isinstance(self.inner, keras.optimizers.LossScaleOptimizer):
            expected = "one that scales no loss. Put LossScaleOptimizer outside"
            checks.refuse(
                "inner", f"{expected}: LossScaleOptimizer(Penalizing(...))", inner
            )

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One step of the inner optimizer, by the gradient of loss + penalties."""
        if trainable_variables is not None and not self.built:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)  # the state is copied before the step
        steps, state = ops.copy(self.iterations), ops.copy(self.state.vector)
        super().apply(grads, trainable_variables)
        if any(term.strength.adapts for term in self.terms):
            # Under gradient accumulation not every call is a step.
            taken = self.iterations > steps
            moved = ops.where(taken, ops.copy(self.state.vector), state)
            self.inner.assign(self.state.vector, moved)

    def _passed_on(self, gradients: Any, variables: Sequence[Any]) -> list[Any]:
        """The gradients of the loss, with the penalties' where there are any."""
        now = Pass(self.state, self.iterations, training=True)
        found = []
        for gradient, variable in zip(gradients, variables, strict=True):
            assigned = self._assigned.get(compat.index_of(self.inner, variable))
            if assigned is not None:
                own = self._gradient(now, assigned, variable)
                own = ops.cast(own, variable.dtype)
                # On TensorFlow an embedding has a sparse gradient.
                gradient = (
                    own if gradient is None else ops.convert_to_tensor(gradient) + own
                )
            found.append(gradient)
        return found

    def _gradient(self, now: Pass, assigned: Assigned, variable: Any) -> Tensor:
        """The gradient of all terms on a weight, scaled as that of the loss is."""
        x = widened(ops.copy(variable))
        total = sum(self._term_gradient(now, term, x) for term in assigned.terms)
        factor = self.loss_scale_factor
        total = total if factor is None else factor * total
        return compat.replica_share(total)

    def _term_gradient(self, now: Pass, term: Term, x: Tensor) -> Tensor:
        penalty, strength = (
            self.anchors.penalty(term, x, training=True),
            now.strengths[term],
        )

        def value(x: Tensor) -> Tensor:
            return ops.cast(term.value(x, penalty), strength.dtype)

        def both() -> tuple[Tensor, Tensor]:
            return value_and_gradient(value, x)

        def neither() -> tuple[Tensor, Tensor]:
            return ops.zeros((), strength.dtype), ops.zeros_like(x)

        # The condition stands around the gradient: within it TensorFlow fails where the
        # penalty has a gradient of its own. The state moves outside of both.
        skips = term.strength.skips
        found, slope = ops.cond(strength > 0, both, neither) if skips else both()
        return ops.cast(now.steered(term, x, found), x.dtype) * slope
