"""Classes that have an order."""

from __future__ import annotations

from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import Loss, LossOptions
from keras_penalties.losses.shapes import as_labels, refuse_shapes
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class Ordinal(Loss):
    """Ordered classes 0 < 1 < … < K−1 as K−1 questions, "is it above k?", by logits.

    CORAL: `Σₖ BCE(zₖ, 1[y > k])`, all questions for each sample; one weight vector with
    K−1 biases gives probabilities that fall with k.

    CORN: `Σ_{k ≤ y} BCE(zₖ, 1[y > k])`, each question only where the one before was
    answered yes, so that sigmoid(zₖ) is `P(y > k | y > k−1)` and the loss the negative
    log-likelihood of y. The mean is over samples, where
    `coral_pytorch.losses.corn_loss` divides by the number of questions that were asked.

    Args:
        method: `"coral"` or `"corn"`. Default `"coral"`.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer ranks 0..K−1 of shape (batch, ...) or (batch, ..., 1).
    `y_pred`, logits, (batch, ..., K−1). The result is (batch, ...). A rank outside the
    range gives NaN.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.Ordinal("corn")
        >>> round(float(loss(np.array([0]), np.zeros((1, 3)))), 4)
        0.6931

    Raises:
        ValueError: if `method` is neither, or the shapes don't fit.

    Source: Cao, Mirjalili and Raschka, "Rank Consistent Ordinal Regression for Neural
    Networks", 2020 (CORAL); Shi, Cao and Raschka, "Deep Neural Networks for
    Rank-Consistent Ordinal Regression Based on Conditional Probabilities", 2023 (CORN).
    """

    exact_targets = True

    def __init__(self, method: str = "coral", **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.method = checks.one_of("method", method, ("coral", "corn"))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The sum over the questions, one value per sample."""
        ranks = ops.expand_dims(as_labels(y_true, y_pred), -1)
        questions = y_pred.shape[-1]
        if not questions:
            refuse_shapes("one logit or more in y_pred", y_true.shape, y_pred.shape)
        steps = ops.cast(ops.arange(questions), ranks.dtype)
        yes, asked = ranks > steps, ranks >= steps
        answers = ops.where(yes, ops.softplus(-y_pred), ops.softplus(y_pred))
        if self.method == "corn":
            answers = ops.where(asked, answers, ops.zeros_like(answers))
        known = ops.logical_and(ranks >= 0, ranks <= questions)
        return ops.sum(ops.where(known, answers, float("nan")), axis=-1)

    @classmethod
    def examples(cls) -> list[Self]:
        """Both methods."""
        return [cls("coral"), cls("corn")]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Four ranks, three logits."""
        return rng.integers(0, 4, batch), rng.normal(size=(batch, 3))
