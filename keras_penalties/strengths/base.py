"""What a strength is: how it starts, what it is at a step, and how it moves."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_penalties import checks, config, registry
from keras_penalties.typing import Tensor

Host: TypeAlias = Literal["penalty", "slot", "layer", "optimizer", "proximal", "loss"]
"""Who is to apply a strength: `"penalty"` stands for any host of a penalty,
`"proximal"` for an optimizer that takes proximal maps."""


class Strength(config.FromSignature):
    """One kind of strength. One subclass is all that a new kind needs.

    A strength has no state of its own. Its host keeps one number for it, the *state*,
    from step to step, and saves that number with the model. A subclass writes `at`, and
    each other method whose default does not fit. `@register` lets a saved file name it.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> @kp.register(package="my_project")
        ... class Halving(kp.strengths.Strength):
        ...     def __init__(self, initial, steps):
        ...         self.initial, self.steps = initial, steps
        ...     def at(self, step, state, training):
        ...         step = keras.ops.cast(step, state.dtype)
        ...         return self.initial * 0.5 ** (step / self.steps)
        >>> penalty = kp.penalties.L1(Halving(1.0, steps=1))
        >>> model = keras.Sequential([kp.layers.ActivityPenalty(penalty, name="code")])
        >>> model.compile("sgd", "mse")
        >>> x = np.ones((4, 1))
        >>> model.fit(x, x, batch_size=1, verbose=0).history["code_l1_strength"]
        [0.46875]
    """

    logged: ClassVar[bool] = True
    """Whether the logs show the strength, as `<term>_strength`."""
    settable: ClassVar[bool] = False
    """Whether the state is the strength itself, which `set_strength` may change."""
    counts_steps: ClassVar[bool] = True
    """Whether `at` reads the step."""
    adapts: ClassVar[bool] = False
    """Whether the state moves by what is measured in training: see `moved`."""
    skips: ClassVar[bool] = False
    """Whether a host should not compute the penalty where the strength is 0."""
    trained_as: ClassVar[str | None] = None
    """The name of a weight that the optimizer trains. `at` then has the state plus that
    weight in the state's place."""

    @property
    def initial_state(self) -> float:
        """The state before the first step."""
        return 0.0

    @property
    def initial_weight(self) -> float:
        """The trained weight before the first step."""
        return 0.0

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """The strength at a step.

        Args:
            step: How many steps of training were taken before, an integer.
            state: The number that the host keeps.
            training: Whether the host is in training, and not in an evaluation.
        """
        raise NotImplementedError

    def moved(
        self, state: Tensor, strength: Tensor, x: Any, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The strength for this step of training, and the state after the step.

        Only for a strength that `adapts`.

        Args:
            state: The number that the host keeps, before the step.
            strength: What `at` gave.
            x: What is penalised: a tensor, or several.
            value: The penalty on `x`, without a strength.
        """
        raise NotImplementedError

    def added(self, strength: Tensor, value: Tensor) -> Tensor:
        """What a term adds to the objective."""
        return strength * value

    def refusal(self, host: Host) -> str | None:
        """Why this strength can't act in a host: what the host expects, or None."""
        if host == "slot":
            return (
                "a constant here: a Keras slot has no step count and no multiplier. "
                "Put the penalty in `keras_penalties.layers.Penalized` or "
                "`ActivityPenalty`, which own them"
            )
        return None

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws and the docs run over."""
        return []


registry.add_kind("strength", Strength)


class Constant(Strength):
    """A number, which `set_strength` may change."""

    logged = False
    settable = True
    counts_steps = False

    def __init__(self, value: float) -> None:
        self.value = value

    @property
    def initial_state(self) -> float:
        """The number."""
        return self.value

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """The state."""
        return state

    def refusal(self, host: Host) -> str | None:
        """A number can act everywhere."""
        return None


class Scheduled(Strength):
    """A schedule, which a step alone decides."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def at(self, step: Tensor, state: Tensor, training: bool) -> Tensor:
        """The schedule's value, in the state's dtype."""
        return ops.cast(self.schedule(step), state.dtype)


@runtime_checkable
class Schedule(Protocol):
    """A `keras.optimizers.schedules.LearningRateSchedule`: Keras has no type for it."""

    def __call__(self, step: Any, /) -> Any:
        """The value at a step."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""


StrengthLike: TypeAlias = float | Schedule | Strength
"""What users write for a strength: a number of 0 or more, a schedule, or a kind of
strength, such as `Target`."""


def as_strength(value: Any, host: Host = "penalty") -> StrengthLike:
    """A strength as a host keeps it: a finite float of 0 or more, or the object.

    Raises:
        ValueError: if `value` is no strength, or none that the host can have.
    """
    if isinstance(value, Strength):
        if (expected := value.refusal(host)) is not None:
            checks.refuse("strength", expected, value)
        return value
    if isinstance(value, LearningRateSchedule):
        schedule: Schedule = value
        return schedule
    return checks.non_negative("strength", value)


def kind_of(value: StrengthLike) -> Strength:
    """The object that knows how this strength behaves."""
    if isinstance(value, Strength):
        return value
    return Constant(value) if isinstance(value, float) else Scheduled(value)


def constant(value: StrengthLike) -> float | None:
    """The number that a strength is, or None if it moves."""
    return value if isinstance(value, float) else None


def check_host(value: StrengthLike, host: Host, argument: str = "strength") -> None:
    """Refuse a strength that can't act in a host.

    Raises:
        ValueError: with what the host expects.
    """
    if (expected := kind_of(value).refusal(host)) is not None:
        checks.refuse(argument, expected, value)
