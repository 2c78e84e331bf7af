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
from keras_penalties.losses.base import checked_ignore
from keras_penalties.losses.hosting import hosted
from keras_penalties.losses.reduction import (
    known,
    known_samples,
    present,
    reduced,
    replaced,
)
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
        ignore: What stands in `y_true` for an unknown target: a label such as -1,
            another number, or NaN, as `float("nan")` or `"nan"`. The mean is over the
            samples whose targets are known, no gradient comes from the others, and a
            batch without a known target costs 0. Default None: all are known.

    Call arguments:
        inputs: The tensor, or structure of tensors, that is passed through. The loss
            takes it as `y_pred`, or, without one, as its first argument. Its mask is
            honoured: the mean is over the values that the mask does not hide. A
            function with an argument `mask` is given the mask (all True without one),
            and may then return one value for a whole sequence.
        sample_weight: Multiplies the values, one for each sample or for each value.
            What is masked, unknown, or has the weight 0 has no part in a gradient: the
            loss has ones in its place.
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

    def __init__(
        self,
        loss: Any,
        strength: StrengthLike = 1.0,
        ignore: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        self.loss = _checked_loss(losses.get(loss, "loss"))
        kwargs.setdefault("name", getattr(self.loss, "name", _word(self.loss)))
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.strength = as_strength(strength, "loss")
        self.ignore = checked_ignore(ignore)
        self._declare([Term(self.name, self.loss, self.strength, LossTarget())])
        if self.ignore is not None and "y_true" not in _arguments(self.loss)[0]:
            checks.refuse("ignore", "None, for a loss without a `y_true`", ignore)

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
        names, needed = ([n for n in x if n != "mask"] for x in (names, needed))
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
        masks = [compat.keras_mask(x) for x in keras.tree.flatten(inputs)]
        masks = [mask for mask in masks if mask is not None]
        if isinstance(self.loss, keras.losses.Loss):
            loss, mask = hosted(self.loss, self.ignore), masks[0] if masks else None
            values, known = loss.unreduced(
                tensors["y_true"], tensors["y_pred"], sample_weight, mask
            )
            value = reduced(values, loss.reduction, sample_weight, [mask, known])
            return compat.undistributed(value)
        return self._function_value(tensors, inputs, sample_weight, masks)

    def _function_value(
        self,
        tensors: dict[str, Any],
        inputs: Any,
        sample_weight: Tensor,
        masks: list[Tensor],
    ) -> Tensor:
        """The mean of a function's values over the samples that are present."""
        main = keras.tree.flatten(inputs)[0]
        said = list(masks)
        if self.ignore is not None:
            entries = known(tensors["y_true"], self.ignore)
            said.append(known_samples(entries, main, by_feature=False))
        among = present(main, sample_weight, said)
        given = {
            name: keras.tree.map_structure(lambda x: _given(x, among), x)
            for name, x in tensors.items()
        }
        asks = "mask" in _arguments(self.loss)[0]
        if asks:
            whole = ops.ones(ops.shape(main)[: max(1, len(main.shape) - 1)], "bool")
            given["mask"] = masks[0] if masks else whole
        values = widened(self.loss(**given))
        if len(values.shape) == 0:
            if (said and not asks) or sample_weight is not None:
                what = "sample_weight" if sample_weight is not None else "mask"
                wanted = "a loss that returns a value for each sample"
                checks.refuse(what, wanted, "a scalar")
            return values
        if not agree(values.shape[:1], main.shape[:1]):
            wanted = "one that returns a value for each sample"
            checks.refuse("loss", wanted, tuple(values.shape))
        if asks:  # of what the function has summed up, whatever it has of a sample
            said = [_over_rest(mask, len(values.shape)) for mask in said]
        value = reduced(values, "sum_over_batch_size", sample_weight, said)
        return compat.undistributed(value)

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


def _given(x: Any, present: Tensor | None) -> Any:
    """A tensor as a function has it: no half floats, nothing of what is absent."""
    if x is None:
        return None
    if keras.backend.is_float_dtype(x.dtype):
        x = widened(x)
    return replaced(x, present)


def _over_rest(mask: Tensor, rank: int) -> Tensor:
    """Whether there is anything, over the mask's axes that the values don't have."""
    mask = ops.cast(mask, "bool")
    rest = tuple(range(rank, len(mask.shape)))
    return ops.any(mask, axis=rest) if rest else mask
