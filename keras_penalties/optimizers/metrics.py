"""In which metric an optimizer steps: how far a weight moves per unit of gradient.

A proximal step is right only in the metric of the step before it. After
`x ← x − D·g`, with D diagonal, the proximal map must use `t = strength·D`, entry by
entry: then a fixed point has `−g ∈ strength·∂penalty(x)`, and is a minimiser. With one
number for t an adaptive optimizer stops 8 to 11 % above the minimum, with no zeros.

Source: Yun, Lozano and Yang, "Adaptive Proximal Gradient Methods for Structured Neural
Networks", 2021; for momentum Ochs et al., "iPiano", 2014.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.numerics import Tensor, widened


class Metric:
    """The diagonal metric of one kind of optimizer."""

    kinds: ClassVar[tuple[Any, ...]] = ()
    """The Keras optimizers whose step this describes."""
    per_entry: ClassVar[bool] = True
    """Whether D differs from entry to entry."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def before(self, variable: Any) -> Tensor | None:
        """What `step_size` needs of the state before the step."""
        return None

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """D: how far the last step moved each entry per unit of its gradient."""
        raise NotImplementedError

    def carry(self, variable: Any, moved: Tensor) -> None:
        """Let the momentum, where the optimizer has one, know of the proximal step."""

    def _state(self, name: str, variable: Any) -> Tensor:
        return widened(compat.optimizer_state(self.optimizer, name, variable))

    def _add_to_state(self, name: str, variable: Any, value: Tensor) -> None:
        state = compat.optimizer_state(self.optimizer, name, variable)
        self.optimizer.assign_add(state, ops.cast(value, state.dtype))

    def _bias_correction(self, beta: float, dtype: Any) -> Tensor:
        """`1 − βᵏ` at the k-th step, which `iterations` does not count yet."""
        step = ops.cast(self.optimizer.iterations + 1, dtype)
        return 1.0 - ops.power(ops.cast(beta, dtype), step)


class SGD(Metric):
    """The learning rate, one number.

    The penalty's slope enters the momentum as the gradient does: the momentum is the
    way that a weight really went. With Nesterov's look-ahead a gradient acts at once by
    `(1 + momentum)·learning_rate`, and so does the penalty.
    """

    kinds = (keras.optimizers.SGD,)
    per_entry = False

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate`, times `1 + momentum` with Nesterov."""
        return learning_rate * self._look_ahead

    def carry(self, variable: Any, moved: Tensor) -> None:
        """The momentum also went the way that the proximal map added."""
        if self.optimizer.momentum:
            self._add_to_state("momentums", variable, moved / self._look_ahead)

    @property
    def _look_ahead(self) -> float:
        momentum: float = self.optimizer.momentum
        return 1.0 + momentum if self.optimizer.nesterov else 1.0


class Adam(Metric):
    """`learning_rate / (√v̂ + ε)`, the ε placed as Keras places it."""

    kinds = (keras.optimizers.Adam, keras.optimizers.AdamW)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate·√(1 − β₂ᵏ) / (√v + ε)`; v is its maximum under `amsgrad`."""
        name = "_velocity_hats" if self.optimizer.amsgrad else "_velocities"
        v = self._state(name, variable)
        correction = ops.sqrt(self._bias_correction(self.optimizer.beta_2, v.dtype))
        return learning_rate * correction / (ops.sqrt(v) + self.optimizer.epsilon)


class Nadam(Metric):
    """`learning_rate / (√v̂ + ε)`: the look-ahead's weights tend to sum to one."""

    kinds = (keras.optimizers.Nadam,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / (√(v / (1 − β₂ᵏ)) + ε)`."""
        v = self._state("_velocities", variable)
        v_hat = v / self._bias_correction(self.optimizer.beta_2, v.dtype)
        return learning_rate / (ops.sqrt(v_hat) + self.optimizer.epsilon)


class Adamax(Metric):
    """`learning_rate / (u + ε)`, u the decaying maximum of the gradient."""

    kinds = (keras.optimizers.Adamax,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / (u + ε)`."""
        return learning_rate / (self._state("_u", variable) + self.optimizer.epsilon)


class RMSprop(Metric):
    """`learning_rate / √(v + ε)`; momentum is treated as SGD's."""

    kinds = (keras.optimizers.RMSprop,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / √(v − ḡ² + ε)`, the mean gradient ḡ only if centered."""
        v = self._state("_velocities", variable)
        if self.optimizer.centered:
            v = v - ops.square(self._state("_average_gradients", variable))
        return learning_rate / ops.sqrt(v + self.optimizer.epsilon)

    def carry(self, variable: Any, moved: Tensor) -> None:
        """The momentum, which Keras subtracts, also went the added way."""
        if self.optimizer.momentum:
            self._add_to_state("_momentums", variable, -moved)


class Adagrad(Metric):
    """`learning_rate / √(Σg² + ε)`."""

    kinds = (keras.optimizers.Adagrad,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / √(Σg² + ε)`."""
        total = self._state("_accumulators", variable)
        return learning_rate / ops.sqrt(total + self.optimizer.epsilon)


class Adadelta(Metric):
    """`learning_rate·√(E[Δ²] + ε) / √(E[g²] + ε)`, E[Δ²] from before the step."""

    kinds = (keras.optimizers.Adadelta,)

    def before(self, variable: Any) -> Tensor | None:
        """`√(E[Δ²] + ε)`."""
        moves = self._state("_accumulated_delta_vars", variable)
        return ops.sqrt(moves + self.optimizer.epsilon)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate·√(E[Δ²] + ε) / √(E[g²] + ε)`."""
        squares = self._state("_accumulated_grads", variable)
        return learning_rate * before / ops.sqrt(squares + self.optimizer.epsilon)


_WHY_NOT = {
    "LossScaleOptimizer": "Put it outside: LossScaleOptimizer(Proximal(...)).",
    "Proximal": "Give all penalties to one Proximal.",
    "MultiOptimizer": "Put a Proximal around each optimizer inside it.",
    "Ftrl": "It has `l1_regularization_strength` of its own.",
    "Lion": "Its step is as long for a small gradient as for a large one, so no "
    "threshold makes it rest at a minimiser.",
    "Muon": "Its step is a rotation of the gradient, with no diagonal metric.",
}


def metric_of(optimizer: Any) -> Metric:
    """The metric in which an optimizer steps.

    Raises:
        ValueError: if it has none, or none that is known: a subclass with an
            `update_step` of its own among them.
    """
    for metric in Metric.__subclasses__():
        for kind in metric.kinds:
            same_step = getattr(type(optimizer), "update_step", None)
            if isinstance(optimizer, kind) and same_step is kind.update_step:
                return metric(optimizer)
    known = [kind.__name__ for m in Metric.__subclasses__() for kind in m.kinds]
    reason = _WHY_NOT.get(type(optimizer).__name__, "Its metric is not known.")
    checks.refuse(
        "inner", f"an optimizer with the step of one of {known}. {reason}", optimizer
    )
