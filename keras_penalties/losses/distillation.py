"""Learning from another model's outputs."""

from __future__ import annotations

from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import Loss, LossOptions
from keras_penalties.losses.shapes import agree, class_probabilities, refuse_shapes
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Distillation(Loss):
    """A teacher's softened probabilities and the labels:

    `alpha·T²·KL(softmax(teacher/T) ‖ softmax(student/T)) + (1 − alpha)·CE(y, student)`.
    T² keeps the size of the gradient as T grows. `alpha=0` is Keras' crossentropy.

    Args:
        temperature: T, above 0. Default 2.0.
        alpha: The share of the teacher, in [0, 1]. Default 0.5.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_pred`, the student's logits, (batch, ..., K). `y_true` carries both the
    labels and the teacher's logits in its last axis, as `targets` packs them: 1 + K
    columns, the integer label and then the logits, or 2K columns, a probability for
    each class and then the logits. The result is (batch, ...). A sample whose label is
    `ignore` is left out, its teacher too; with `alpha=1` no label matters.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.Distillation(temperature=1.0)
        >>> y = loss.targets(labels=np.array([0]), teacher_logits=np.zeros((1, 2)))
        >>> y.tolist()
        [[0.0, 0.0, 0.0]]
        >>> round(float(loss(y, np.zeros((1, 2)))), 4)
        0.3466

    Raises:
        ValueError: if an argument is out of its range, or `y_true` has another number
            of columns.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network",
    2015.
    """

    def __init__(
        self,
        temperature: float = 2.0,
        alpha: float = 0.5,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = checks.positive("temperature", temperature)
        self.alpha = checks.number("alpha", alpha, 0.0, 1.0)

    @staticmethod
    def targets(labels: np.ndarray, teacher_logits: np.ndarray) -> np.ndarray:
        """The `y_true` that this loss reads: labels, then the teacher's logits.

        Args:
            labels: Integers of shape (batch, ...) or (batch, ..., 1), or a probability
                for each class, (batch, ..., K).
            teacher_logits: (batch, ..., K).

        Raises:
            ValueError: if the shapes don't fit.
        """
        labels, teacher_logits = np.asarray(labels), np.asarray(teacher_logits)
        if labels.ndim == teacher_logits.ndim - 1:
            labels = labels[..., None]
        fits = labels.shape[:-1] == teacher_logits.shape[:-1]
        if not fits or labels.shape[-1] not in (1, teacher_logits.shape[-1]):
            wanted = f"one label, or {teacher_logits.shape[-1]}, for each row of logits"
            checks.refuse("labels", wanted, labels.shape)
        return np.concatenate([labels, teacher_logits], axis=-1)

    def _known(self, y_true: Tensor, y_pred: Tensor, ignore: float | str) -> Tensor:
        # The teacher's logits are no labels, whatever numbers they are.
        columns = ops.arange(y_true.shape[-1])
        teacher = columns >= y_true.shape[-1] - y_pred.shape[-1]
        return ops.logical_or(super()._known(y_true, y_pred, ignore), teacher)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per sample."""
        classes = y_pred.shape[-1]
        columns = y_true.shape[-1] if len(y_true.shape) == len(y_pred.shape) else None
        fits = columns in (1 + classes, 2 * classes)
        if not fits or not agree(y_true.shape[:-1], y_pred.shape[:-1]):
            wanted = f"{1 + classes} or {2 * classes} columns in y_true"
            refuse_shapes(wanted, y_true.shape, y_pred.shape)
        labels, teacher = y_true[..., :-classes], y_true[..., -classes:]
        log_teacher = ops.log_softmax(teacher / self.temperature, axis=-1)
        log_student = ops.log_softmax(y_pred / self.temperature, axis=-1)
        gap = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        true = class_probabilities(labels, y_pred)
        hard = -ops.sum(true * ops.log_softmax(y_pred, axis=-1), axis=-1)
        return self.alpha * self.temperature**2 * gap + (1.0 - self.alpha) * hard

    @classmethod
    def examples(cls) -> list[Self]:
        """Both parts, and each alone."""
        return [cls(), cls(4.0, alpha=1.0), cls(alpha=0.0)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and a teacher of four classes."""
        teacher = rng.normal(size=(batch, 4))
        y_true = self.targets(rng.integers(0, 4, batch), teacher)
        return y_true, rng.normal(size=(batch, 4))
