"""How targets meet predictions: ranks, packed parameters, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from keras import ops

from keras_penalties.typing import Tensor


def aligned(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same shape and a last axis of features.

    Targets of shape (batch,) meet predictions of shape (batch, 1) and the other way
    round, as in Keras' own losses: else they would broadcast to (batch, batch).

    Raises:
        ValueError: if the shapes differ otherwise.
    """
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true_shape) + 1 == len(pred_shape) and pred_shape[-1] == 1:
        y_pred = ops.squeeze(y_pred, -1)
    elif len(pred_shape) + 1 == len(true_shape) and true_shape[-1] == 1:
        y_true = ops.squeeze(y_true, -1)
    if len(y_true.shape) == len(y_pred.shape) == 1:
        y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
    if not agree(y_true.shape, y_pred.shape):
        refuse_shapes(
            "the same shape, but for a last axis of 1", true_shape, pred_shape
        )
    return y_true, y_pred


def unpacked(
    y_true: Tensor, y_pred: Tensor, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Targets (..., d), and (..., count, d): the parameters of each of them.

    `y_pred` (..., count * d) holds the first parameter of all d features, then the
    second of all, and so on. Targets (...) without an axis of features have d = 1.

    Raises:
        ValueError: if the last axis does not hold `count`, or with None any number,
            of parameters for each feature.
    """
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if count == 1:
        y_true, y_pred = aligned(y_true, y_pred)
    elif len(true_shape) + 1 == len(pred_shape):
        y_true = ops.expand_dims(y_true, -1)
    features: int = (y_true.shape[-1] if len(y_true.shape) else None) or 0
    width: int = (y_pred.shape[-1] if len(pred_shape) else None) or 0
    whole = features and width and width % features == 0
    if not whole or not agree(y_true.shape[:-1], y_pred.shape[:-1]):
        wanted = f"{count or 'any number of'} parameters for each target in the last"
        refuse_shapes(f"equal shapes, but for {wanted} axis", true_shape, pred_shape)
    found = width // features
    if count not in (None, found):
        wanted = f"{count * features} entries, {count} for each of {features} targets,"
        refuse_shapes(f"{wanted} in y_pred's last axis", true_shape, pred_shape)
    packed = ops.reshape(y_pred, (*ops.shape(y_pred)[:-1], found, features))
    return y_true, packed


def class_probabilities(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Targets as a probability for each class of `y_pred`, in its shape and dtype.

    They come so, (..., classes), or as integer labels of shape (...) or (..., 1). A
    label outside 0..classes-1 gives NaN, not a sample that is silently left out.

    Raises:
        ValueError: if the shapes fit neither way, or there is one class only.
    """
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if len(pred_shape) < 2 or pred_shape[-1] in (None, 1):
        wanted = "y_pred (batch, ..., classes) with two classes or more"
        refuse_shapes(wanted, true_shape, pred_shape)
    if len(true_shape) == len(pred_shape) and true_shape[-1] != 1:
        if not agree(true_shape, pred_shape):
            refuse_shapes("labels, or one target for each", true_shape, pred_shape)
        return ops.cast(y_true, y_pred.dtype)
    labels = as_labels(y_true, y_pred)
    return one_hot(labels, pred_shape[-1], y_pred.dtype)


def as_labels(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Labels of shape (...) for `y_pred` (..., classes), from (...) or (..., 1).

    Raises:
        ValueError: if the shapes differ otherwise.
    """
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true_shape) == len(pred_shape) and true_shape and true_shape[-1] == 1:
        y_true = ops.squeeze(y_true, -1)
    if not pred_shape or not agree(y_true.shape, pred_shape[:-1]):
        refuse_shapes("one label for each row of y_pred", true_shape, pred_shape)
    return y_true


def one_hot(labels: Tensor, classes: int, dtype: str) -> Tensor:
    """One row for each label, NaN for a label that is not one of 0..classes-1."""
    matches = ops.expand_dims(labels, -1) == ops.cast(ops.arange(classes), labels.dtype)
    known = ops.any(matches, axis=-1, keepdims=True)
    return ops.where(known, ops.cast(matches, dtype), float("nan"))


def agree(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two static shapes can be the same."""
    pairs = zip(one, other, strict=False)
    known = (a == b for a, b in pairs if None not in (a, b))
    return len(one) == len(other) and all(known)


def refuse_shapes(
    expected: str, true_shape: Sequence[int | None], pred_shape: Sequence[int | None]
) -> NoReturn:
    """Raise the error for shapes that don't fit, in one form for all losses."""
    raise ValueError(
        f"`y_true` and `y_pred` don't fit. Expected {expected}. Received: y_true of "
        f"shape {tuple(true_shape)}, y_pred of shape {tuple(pred_shape)}"
    )
