"""The preconditioner of an optimizer: how far each weight moves per unit of gradient.

A proximal step is right only in the metric of the step before it. After
`x ← x − D·g`, with D diagonal, the proximal map must use `t = strength·D`, entry by
entry: then a fixed point has `−g ∈ strength·∂penalty(x)`, and is a minimiser. With one
number for t an adaptive optimizer stops 8 to 11 % above the minimum, with no zeros.

With momentum the last step holds many gradients, `x ← x − Σ Dᵢ·gᵢ`, and D is the sum
of their Dᵢ: how far a gradient that never changed would have moved the weight. The
momentum averages the noise of mini-batches before the threshold is taken, which is
what keeps zeros at zero.

Source: Yun, Lozano and Yang, "Adaptive Proximal Gradient Methods for Structured Neural
Networks", 2021.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.numerics import widened
from keras_penalties.typing import Tensor


class Preconditioner:
    """The diagonal metric of one kind of optimizer."""

    kinds: ClassVar[tuple[Any, ...]] = ()
    """The Keras optimizers whose step this describes."""
    per_entry: ClassVar[bool] = True
    """Whether D differs from entry to entry."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def build(self, variable: Any) -> None:
        """Create what must be kept for this weight from step to step."""

    def before(self, variable: Any) -> Tensor | None:
        """What `step_size` needs of the state before the step."""
        return None

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """D: how far the last step moved each entry per unit of its gradient."""
        raise NotImplementedError

    def _state(self, name: str, variable: Any) -> Tensor:
        return widened(compat.optimizer_state(self.optimizer, name, variable))

    def _bias_correction(self, beta: float, dtype: Any) -> Tensor:
        """`1 − βᵏ` at the k-th step, which `iterations` does not count yet."""
        step = ops.cast(self.optimizer.iterations + 1, dtype)
        return 1.0 - ops.power(ops.cast(beta, dtype), step)


class WithMomentum(Preconditioner):
    """Of an optimizer that may keep a momentum `m ← momentum·m − D·g`.

    The sum of all D that are part of m is a variable of the inner optimizer.
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self._reach: dict[int, Any] = {}

    def build(self, variable: Any) -> None:
        """Create the sum, which starts at 0 like the momentum."""
        if self.optimizer.momentum:
            self._reach[compat.index_of(self.optimizer, variable)] = (
                self.optimizer.add_variable(
                    shape=variable.shape if self.per_entry else (),
                    dtype=keras.backend.standardize_dtype(widened(variable).dtype),
                    name=f"{variable.path.replace('/', '_')}_reach",
                )
            )

    def _momentum(self, dtype: Any) -> Any:
        return self.optimizer.momentum

    def _with_momentum(self, variable: Any, size: Tensor) -> Tensor:
        """The sum, this step's D included."""
        if not self.optimizer.momentum:
            return size
        kept = self._reach[compat.index_of(self.optimizer, variable)]
        reach = self._momentum(size.dtype) * widened(kept) + size
        self.optimizer.assign(kept, ops.cast(reach, kept.dtype))
        return reach


class SGD(WithMomentum):
    """The learning rate, one number, with the momentum's sum of it."""

    kinds = (keras.optimizers.SGD,)
    per_entry = False

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate`, or its sum; Nesterov's step looks ahead by one more."""
        reach = self._with_momentum(variable, learning_rate)
        if self.optimizer.momentum and self.optimizer.nesterov:
            return self._momentum(reach.dtype) * reach + learning_rate
        return reach

    def _momentum(self, dtype: Any) -> Any:
        # As in Keras' SGD, which rounds the momentum to float32 also in float64.
        return ops.cast(self.optimizer.momentum, dtype)


class Adam(Preconditioner):
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


class Nadam(Preconditioner):
    """`c·learning_rate / (√v̂ + ε)`, c the weights that Keras' look-ahead gives.

    They sum to one in the limit, and to up to a quarter less in the first steps.
    """

    kinds = (keras.optimizers.Nadam,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate·c / (√(v / (1 − β₂ᵏ)) + ε)`."""
        v = self._state("_velocities", variable)
        v_hat = v / self._bias_correction(self.optimizer.beta_2, v.dtype)
        reach = learning_rate * self._look_ahead(v.dtype)
        return reach / (ops.sqrt(v_hat) + self.optimizer.epsilon)

    def _look_ahead(self, dtype: Any) -> Tensor:
        beta, steps = (
            ops.cast(x, dtype)
            for x in (self.optimizer.beta_1, self.optimizer.iterations)
        )
        now, after = (beta * (1.0 - 0.5 * 0.96 ** (steps + k)) for k in (1.0, 2.0))
        product = ops.cast(compat.optimizer_state(self.optimizer, "_u_product"), dtype)
        average = self._bias_correction(self.optimizer.beta_1, dtype)
        return after * average / (1.0 - product * after) + (1.0 - now) / (1.0 - product)


class Adamax(Preconditioner):
    """`learning_rate / (u + ε)`, u the decaying maximum of the gradient."""

    kinds = (keras.optimizers.Adamax,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / (u + ε)`."""
        return learning_rate / (self._state("_u", variable) + self.optimizer.epsilon)


class RMSprop(WithMomentum):
    """`learning_rate / √(v + ε)`, with the momentum's sum of it."""

    kinds = (keras.optimizers.RMSprop,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / √(v − ḡ² + ε)`, the mean gradient ḡ only if centered."""
        v = self._state("_velocities", variable)
        if self.optimizer.centered:
            v = v - ops.square(self._state("_average_gradients", variable))
        size = learning_rate / ops.sqrt(v + self.optimizer.epsilon)
        return self._with_momentum(variable, size)


class Adagrad(Preconditioner):
    """`learning_rate / √(Σg² + ε)`."""

    kinds = (keras.optimizers.Adagrad,)

    def step_size(
        self, variable: Any, learning_rate: Tensor, before: Tensor | None
    ) -> Tensor:
        """`learning_rate / √(Σg² + ε)`."""
        total = self._state("_accumulators", variable)
        return learning_rate / ops.sqrt(total + self.optimizer.epsilon)


class Adadelta(Preconditioner):
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


PRECONDITIONERS = (SGD, Adam, Nadam, Adamax, RMSprop, Adagrad, Adadelta)

_WHY_NOT = {
    "LossScaleOptimizer": "Put it outside: LossScaleOptimizer(Proximal(...)).",
    "HoldZeros": "Put it outside: HoldZeros(Proximal(...)).",
    "Proximal": "Give all penalties to one Proximal.",
    "MultiOptimizer": "Put a Proximal around each optimizer inside it.",
    "Ftrl": "It has `l1_regularization_strength` of its own.",
    "Lion": "Its step is as long for a small gradient as for a large one, so no "
    "threshold makes it rest at a minimiser.",
    "Muon": "Its step is a rotation of the gradient, with no diagonal metric.",
}


def preconditioner_of(optimizer: Any) -> Preconditioner:
    """The metric in which an optimizer steps.

    Raises:
        ValueError: if the optimizer has no diagonal preconditioner, or an unknown one,
            as a subclass with its own `update_step`.
    """
    for preconditioner in PRECONDITIONERS:
        for kind in preconditioner.kinds:
            own_step = getattr(type(optimizer), "update_step", None)
            if isinstance(optimizer, kind) and own_step is kind.update_step:
                return preconditioner(optimizer)
    known = [
        kind.__name__
        for preconditioner in PRECONDITIONERS
        for kind in preconditioner.kinds
    ]
    reason = _WHY_NOT.get(type(optimizer).__name__, "Its metric is not known.")
    checks.refuse(
        "inner", f"an optimizer with the step of one of {known}. {reason}", optimizer
    )
