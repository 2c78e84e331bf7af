"""Losses of class logits: margins, label noise, imbalance, overconfidence."""

from __future__ import annotations

from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import FeatureLoss, Loss, LossOptions
from keras_penalties.losses.shapes import aligned, class_probabilities
from keras_penalties.numerics import positive_part
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


class ClassLoss(Loss):
    """A loss of logits (..., classes), for integer labels or a probability of each."""

    exact_targets = True

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Integer labels, and logits of four classes."""
        return rng.integers(0, 4, batch), rng.normal(size=(batch, 4))

    def _known(self, y_true: Tensor, y_pred: Tensor, ignore: float | str) -> Tensor:
        dense = len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] != 1
        if dense and not isinstance(ignore, str) and 0 <= ignore <= 1:
            wanted = "'nan' or a number outside [0, 1] beside rows of probabilities"
            checks.refuse("ignore", wanted, ignore)
        return super()._known(y_true, y_pred, ignore)


@register
class MulticlassHinge(ClassLoss):
    """The hinge loss for several classes, from the scores z, with the true class y.

    Crammer and Singer, `"cs"`: `max_j(z_j + 1[j ≠ y]) − z_y`, the worst rival only.
    Weston and Watkins, `"ww"`: `Σ_{j≠y} max(0, 1 + z_j − z_y)`, all rivals. In Keras'
    `CategoricalHinge` the true class competes too, as a 0, so that it is not 0 for some
    scores with every margin kept, and not unchanged when all scores shift.

    Args:
        method: `"cs"` or `"ww"`. Default `"cs"`.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or
    one-hot (batch, ..., classes). `y_pred`, scores, (batch, ..., classes). The result
    is (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.MulticlassHinge("ww")
        >>> float(loss(np.array([0]), np.array([[1.0, 0.5, 2.0]])))
        2.5

    Raises:
        ValueError: if `method` is neither, or the shapes don't fit.

    Source: Crammer and Singer, "On the Algorithmic Implementation of Multiclass
    Kernel-based Vector Machines", 2001; Weston and Watkins, "Support Vector Machines
    for Multi-Class Pattern Recognition", 1999.
    """

    def __init__(self, method: str = "cs", **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.method = checks.one_of("method", method, ("cs", "ww"))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per sample."""
        true = class_probabilities(y_true, y_pred)
        score = ops.sum(true * y_pred, axis=-1, keepdims=True)
        # The true class itself: its excess is 0, and it counts in neither form.
        excess = (y_pred - score) * (1.0 - true) + (1.0 - true)
        reduce = ops.sum if self.method == "ww" else ops.max
        return reduce(positive_part(excess), axis=-1)

    @classmethod
    def examples(cls) -> list[Self]:
        """Both methods."""
        return [cls("cs"), cls("ww")]


@register
class SymmetricCrossentropy(ClassLoss):
    """Crossentropy and its reverse, for noisy labels: `alpha·CE(y, p) + beta·CE(p, y)`.

    p = softmax(logits). The reverse, `−Σ p_k·log y_k` with `log 0 := log_zero`, is
    bounded, so that a wrong label can't pull without limit. For a hard label it is
    `−log_zero·(1 − p_y)`. `alpha=1, beta=0` is Keras' crossentropy.

    Args:
        alpha: The factor of the crossentropy, 0 or more. Default 0.1, as for CIFAR-10.
        beta: The factor of the reverse, 0 or more. Default 1.0.
        log_zero: What stands for log 0, below 0; no log of a target is lower. Default
            -4.0.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or
    probabilities (batch, ..., classes). `y_pred`, logits, (batch, ..., classes). The
    result is (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.SymmetricCrossentropy(alpha=0.0)
        >>> float(loss(np.array([1]), np.zeros((1, 2))))
        2.0

    Raises:
        ValueError: if a factor is negative, `log_zero` isn't below 0, or the shapes
            don't fit.

    Source: Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy
    Labels", 2019.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        log_zero: float = -4.0,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.alpha = checks.non_negative("alpha", alpha)
        self.beta = checks.non_negative("beta", beta)
        self.log_zero = checks.number("log_zero", log_zero, high=0.0, open_high=True)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per sample."""
        true = class_probabilities(y_true, y_pred)
        log_p = ops.log_softmax(y_pred, axis=-1)
        positive = ops.where(true > 0, true, ops.ones_like(true))
        floor = self.log_zero * ops.ones_like(true)
        log_true = ops.where(true > 0, ops.maximum(ops.log(positive), floor), floor)
        forward = -ops.sum(true * log_p, axis=-1)
        reverse = -ops.sum(ops.exp(log_p) * log_true, axis=-1)
        return self.alpha * forward + self.beta * reverse

    @classmethod
    def examples(cls) -> list[Self]:
        """The source's for CIFAR-10, and that for CIFAR-100 with a lower floor."""
        return [cls(), cls(6.0, 0.1, -6.0)]


@register
class PenalizedCrossentropy(ClassLoss):
    """Crossentropy with up to three terms against overconfidence.

    `CE(ỹ, p) − confidence_penalty·H(p) + poly·(1 − Σ y_k·p_k)`, p = softmax(logits). ỹ
    are the targets mixed with `label_smoothing` of the uniform distribution, H is the
    entropy, and `poly` corrects the first term of the crossentropy's expansion in
    `1 − p_y`. All three at 0 are Keras' crossentropy.

    Args:
        label_smoothing: The share of the uniform distribution, in [0, 1]. Default 0.0.
        confidence_penalty: The strength of the negative entropy, 0 or more. Default
            0.0.
        poly: The factor ε₁ of Poly-1, -1 or more. Default 0.0.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, integer labels of shape (batch, ...) or (batch, ..., 1), or
    probabilities (batch, ..., classes). `y_pred`, logits, (batch, ..., classes). The
    result is (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.PenalizedCrossentropy(confidence_penalty=1.0)
        >>> round(float(loss(np.array([0]), np.array([[3.0, 0.0]]))), 4)
        -0.1423

    Raises:
        ValueError: if an argument is out of its range, or the shapes don't fit.

    Source: Szegedy et al., "Rethinking the Inception Architecture", 2016; Pereyra et
    al., "Regularizing Neural Networks by Penalizing Confident Output Distributions",
    2017; Leng et al., "PolyLoss", 2022.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        confidence_penalty: float = 0.0,
        poly: float = 0.0,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.label_smoothing = checks.number(
            "label_smoothing", label_smoothing, 0.0, 1.0
        )
        self.confidence_penalty = checks.non_negative(
            "confidence_penalty", confidence_penalty
        )
        self.poly = checks.number("poly", poly, -1.0)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value per sample."""
        true = class_probabilities(y_true, y_pred)
        log_p = ops.log_softmax(y_pred, axis=-1)
        p = ops.exp(log_p)
        uniform = self.label_smoothing / y_pred.shape[-1]
        smoothed = (1.0 - self.label_smoothing) * true + uniform
        # All terms but the last are linear in log p, which no 0·log 0 can spoil.
        linear = ops.sum((self.confidence_penalty * p - smoothed) * log_p, axis=-1)
        return linear + self.poly * (1.0 - ops.sum(true * p, axis=-1))

    @classmethod
    def examples(cls) -> list[Self]:
        """Each term, and all."""
        return [cls(), cls(label_smoothing=0.1), cls(0.1, 0.3, 1.0)]


@register
class AsymmetricLoss(FeatureLoss):
    """Binary crossentropy for several labels in which easy negatives count less.

    `−y·(1 − p)^γ₊·log p − (1 − y)·p_m^γ₋·log(1 − p_m)` with p = sigmoid(logits) and
    `p_m = max(p − margin, 0)`: a negative below the margin costs nothing. All three
    arguments 0 give Keras' `BinaryCrossentropy(from_logits=True)`, equal γ the focal
    loss.

    Args:
        gamma_positive: The focus γ₊ on hard positives, 0 or more. Default 0.0.
        gamma_negative: The focus γ₋ on hard negatives, 0 or more. Default 4.0.
        margin: The probability below which a negative is easy, in [0, 1). Default 0.05.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true`, 0 or 1 or between, and `y_pred`, logits, (batch, ..., labels), or
    (batch,) on either side; the result is (batch, ...), a mean over the labels.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.AsymmetricLoss(gamma_negative=2.0, margin=0.0)
        >>> round(float(loss(np.array([[0.0]]), np.array([[0.0]]))), 4)
        0.1733

    Raises:
        ValueError: if an argument is out of its range, or the shapes differ by more
            than a last axis of 1.

    Source: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021.
    """

    def __init__(
        self,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        margin: float = 0.05,
        **kwargs: Unpack[LossOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.gamma_positive = checks.non_negative("gamma_positive", gamma_positive)
        self.gamma_negative = checks.non_negative("gamma_negative", gamma_negative)
        self.margin = checks.number("margin", margin, 0.0, 1.0, open_high=True)

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each label."""
        y_true, logits = aligned(y_true, y_pred)
        log_p, log_rest = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
        positive = ops.exp(self.gamma_positive * log_rest) * log_p
        if self.margin:
            shifted = positive_part(ops.sigmoid(logits) - self.margin)
            hard = shifted > 0
            # Where it is 0 the term is 0, but a power of 0 may have no slope.
            shifted = ops.where(hard, shifted, 0.5 * ops.ones_like(shifted))
            rest = ops.sigmoid(-logits) + self.margin
            rest = ops.where(hard, rest, ops.ones_like(rest))
            negative = ops.exp(self.gamma_negative * ops.log(shifted)) * ops.log(rest)
        else:
            negative = ops.exp(self.gamma_negative * log_p) * log_rest
        return -(y_true * positive + (1.0 - y_true) * negative)

    @classmethod
    def examples(cls) -> list[Self]:
        """The paper's, the focal loss, and plain crossentropy."""
        return [cls(), cls(2.0, 2.0, 0.0), cls(0.0, 0.0, 0.0)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Three labels, each on or off."""
        return rng.integers(0, 2, (batch, 3)), rng.normal(size=(batch, 3))
