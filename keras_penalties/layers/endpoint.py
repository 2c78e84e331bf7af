"""Losses of more than two arguments: of any tensors in a model, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks, compat, losses
from keras_penalties.hosting.targets import LossTarget
from keras_penalties.hosting.term import Term
from keras_penalties.layers.base import PenaltyLayer
from keras_penalties.losses.shapes import agree
from keras_penalties.numerics import widened
from keras_penalties.registry import register
from keras_penalties.strengths import Learned, StrengthLike, as_strength
from keras_penalties.typing import Tensor


@register
class AddLoss(PenaltyLayer):
    """Passes its input through and adds a loss of it and of other tensors, by name.

    The tensors may be inputs, outputs of any layer, targets and whatever comes with a
    sample: each is a `keras.Input` of the model that is trained, which needs no `y`.
    The model from the inputs to the prediction alone stays free of all that. The loss
    is logged under the layer's name.

    Args:
        loss: A function of tensors, by their names, that returns a value for each
            sample, of which the mean is taken over the batch, or a scalar; or a
            `keras.losses.Loss`, its name or config, with its own reduction. A model is
            saved whole if the function is registered: `@kp.register(package=...)`.
        strength: The multiplier, 0 or more, a schedule, a `Target`, or a `Learned`,
            which balances several losses in training. Default 1.

    Call arguments:
        inputs: The tensor, or structure of tensors, that is passed through. The loss
            takes it as `y_pred`, or, without one, as its first argument. Its mask is
            honoured: of the values, the mean over the valid ones.
        sample_weight: Multiplies the values, one for each sample or for each value.
        **kwargs: The other tensors, by the names that the loss gives them. Half floats
            are widened for a function; others keep their dtype.

    Shapes: any, unchanged.

    Example:
        >>> import keras, keras_penalties as kp
        >>> @kp.register(package="my_project")
        ... def scaled_error(y_pred, y_true, scale):
        ...     return keras.ops.sum(((y_pred - y_true) / scale) ** 2, axis=-1)
        >>> x = keras.Input((2,))
        >>> y_true, scale = keras.Input((1,)), keras.Input((1,))
        >>> y_pred = keras.layers.Dense(1)(x)
        >>> inference = keras.Model(x, y_pred)
        >>> passed = kp.layers.AddLoss(scaled_error)(y_pred, y_true=y_true, scale=scale)
        >>> training = keras.Model([x, y_true, scale], passed)
        >>> training.compile("adam")
        >>> data = [keras.ops.ones((4, n)) for n in (2, 1, 1)]
        >>> list(training.fit(data, verbose=0).history)
        ['loss', 'scaled_error']

    Raises:
        ValueError: if the loss has no argument of a name that is given, or lacks one
            that it needs; if a weight or a mask meets a loss that returns a scalar; if
            a `Loss` does not reduce its values.
    """

    def __init__(self, loss: Any, strength: StrengthLike = 1.0, **kwargs: Any) -> None:
        self.loss = _checked_loss(losses.get(loss, "loss"))
        kwargs.setdefault("name", getattr(self.loss, "name", _word(self.loss)))
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.strength = as_strength(strength, "loss")
        self._declare([Term(self.name, self.loss, self.strength, LossTarget())])

    def call(
        self,
        inputs: Any,
        sample_weight: Tensor = None,
        training: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The input, its loss added."""
        if self._losses_wanted():
            tensors = self._named(inputs, kwargs)
            opened = self._opened_pass(training)
            with compat.full_precision():
                value = self._loss_value(tensors, inputs, sample_weight)
            self._add_terms(opened, {self.terms[0]: value}, inputs)
        return inputs

    def _named(self, inputs: Any, others: Mapping[str, Any]) -> dict[str, Any]:
        """Every tensor under the name that the loss has for it."""
        names, needed, catches_all = _arguments(self.loss)
        main = "y_pred" if "y_pred" in names else names[0]
        missing = [n for n in needed if n not in (main, *others)]
        unknown = [n for n in others if n == main or n not in names]
        if missing or (unknown and not (catches_all and main not in others)):
            wanted = [n for n in names if n != main]
            checks.refuse(
                "kwargs",
                f"the tensors {wanted} by name, beside the input as '{main}', for "
                f"the loss '{self.name}'",
                sorted(others),
            )
        return {main: inputs, **others}

    def _loss_value(
        self, tensors: dict[str, Any], inputs: Any, sample_weight: Tensor
    ) -> Tensor:
        if isinstance(self.loss, keras.losses.Loss):
            value = self.loss(sample_weight=sample_weight, **tensors)
            return compat.undistributed(value)
        wide = {n: keras.tree.map_structure(_not_half, x) for n, x in tensors.items()}
        return _mean(self.loss(**wide), inputs, sample_weight)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The input's."""
        known = ("sample_weight", "training")
        self._named(inputs, {n: x for n, x in kwargs.items() if n not in known})
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype), inputs
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over: two losses, and a learned strength."""
        losses_ = [cls("mean_squared_error", 0.5), cls("half_sum_squared_error")]
        return [*losses_, cls("mean_absolute_error", Learned(2.0))]

    def example_inputs(self, x: Any) -> dict[str, Any]:
        """The call's arguments, for the laws."""
        return {"inputs": x, "y_true": ops.zeros_like(x)}


def _word(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _checked_loss(loss: Any) -> Callable[..., Tensor]:
    if isinstance(loss, keras.losses.Loss) and loss.reduction in (None, "none"):
        checks.refuse("loss", "a loss with a reduction", loss)
    names, _, _ = _arguments(loss)
    if not names:
        checks.refuse("loss", "a function with an argument for each tensor", loss)
    return loss


def _arguments(loss: Any) -> tuple[list[str], list[str], bool]:
    """A loss' arguments, those that have no default, and whether it takes any name."""
    if isinstance(loss, keras.losses.Loss):
        return ["y_true", "y_pred"], ["y_true", "y_pred"], False
    parameters = inspect.signature(loss).parameters.values()
    named = [
        p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    needed = [p.name for p in named if p.default is p.empty]
    catches_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return [p.name for p in named], needed, catches_all


def _not_half(x: Any) -> Any:
    if x is None or not keras.backend.is_float_dtype(x.dtype):
        return x
    return widened(x)


def _mean(values: Tensor, inputs: Any, sample_weight: Tensor) -> Tensor:
    """The mean of a loss' values, as Keras has it: over the valid ones, weighted."""
    values = widened(values)
    flat = keras.tree.flatten(inputs)
    masks = [m for m in map(compat.keras_mask, flat) if m is not None]
    scalar = len(values.shape) == 0
    if scalar and (masks or sample_weight is not None):
        what = "sample_weight" if sample_weight is not None else "mask"
        checks.refuse(what, "a loss that returns a value for each sample", "a scalar")
    if scalar:
        return values
    if not agree(values.shape[:1], flat[0].shape[:1]):
        wanted = "one that returns a value for each sample"
        checks.refuse("loss", wanted, tuple(values.shape))
    valid = ops.ones_like(values)
    for mask in masks:
        valid = valid * ops.cast(_spread("mask", mask, values), values.dtype)
    if sample_weight is not None:
        weight = _spread("sample_weight", sample_weight, values)
        values = values * ops.cast(weight, values.dtype)
    # Not by a product: what was computed where there is nothing may be infinite.
    values = ops.where(valid > 0, values, ops.zeros_like(values))
    return ops.divide_no_nan(ops.sum(values), ops.sum(valid))


def _spread(name: str, x: Tensor, values: Tensor) -> Tensor:
    """`x`, of the first axes of the values, as it broadcasts to all of them."""
    x, rank = ops.convert_to_tensor(x), len(values.shape)
    if len(x.shape) > 1 and x.shape[-1] == 1:
        x = ops.squeeze(x, -1)
    if not agree(x.shape, values.shape[: len(x.shape)]):
        wanted = f"the first axes of the loss' values, {tuple(values.shape)}"
        checks.refuse(name, wanted, tuple(x.shape))
    while len(x.shape) < rank:
        x = ops.expand_dims(x, -1)
    return x
