"""Proper scores of a predicted distribution that are in the units of the target."""

from __future__ import annotations

import math
from typing import Self, Unpack

import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.losses.base import FeatureLoss, Loss, LossOptions
from keras_penalties.losses.likelihood import _LocationScale
from keras_penalties.losses.shapes import unpacked
from keras_penalties.numerics import absolute, bounded, norm
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class GaussianCRPS(_LocationScale):
    """The continuous ranked probability score of a normal, in closed form.

    `σ·[z·(2Φ(z) − 1) + 2φ(z) − 1/√π]`, `z = (y − m)/σ`. It grows as the absolute error
    where the likelihood grows as the square, and is that error where σ nears 0.

    It takes the options of `Loss`: `name`, `reduction`, `dtype` and `ignore`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., 2 * features): all means m, then all `log σ`, which are held within
    ±30, as in `GaussianNLL`. The result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.GaussianCRPS()
        >>> round(float(loss(np.array([1.0]), np.array([[0.0, 0.0]]))), 4)
        0.6024

    Raises:
        ValueError: if `y_pred` doesn't hold two parameters for each target.

    Source: Gneiting et al., "Calibrated Probabilistic Forecasting Using Ensemble Model
    Output Statistics and Minimum CRPS Estimation", 2005.
    """

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        y_true, packed = unpacked(y_true, y_pred, 2)
        residual, scale = (
            y_true - packed[..., 0, :],
            ops.exp(bounded(packed[..., 1, :])),
        )
        # Beyond 40 scales Φ is 0 or 1 and φ is 0, and the square may be infinite.
        near = ops.abs(residual) < 40.0 * scale
        z = ops.where(near, residual, ops.zeros_like(residual)) / scale
        sides = ops.where(near, ops.erf(z / math.sqrt(2.0)), ops.sign(residual))
        density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2.0 * math.pi)
        density = ops.where(near, density, ops.zeros_like(density))
        return residual * sides + scale * (2.0 * density - 1.0 / math.sqrt(math.pi))


class _Ensemble(Loss):
    """A score of m members, `E‖X − y‖ − ½·E‖X − X'‖`, biased or fair.

    Args:
        fair: Whether the mean over pairs leaves out each member with itself, which
            makes the score that of the distribution which the members are drawn from.
    """

    def __init__(self, fair: bool = False, **kwargs: Unpack[LossOptions]) -> None:
        super().__init__(**kwargs)
        self.fair = checks.instance("fair", fair, bool)

    def _errors(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, int]:
        """(..., members, features) of member minus target, and the number of pairs."""
        y_true, packed = unpacked(y_true, y_pred)
        members = packed.shape[-2]
        if self.fair and members < 2:
            raise ValueError(
                f"{type(self).__name__}(fair=True) needs two members or more. "
                f"Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        pairs = members * (members - 1) if self.fair else members**2
        return packed - ops.expand_dims(y_true, -2), pairs

    @classmethod
    def examples(cls) -> list[Self]:
        """Biased and fair."""
        return [cls(), cls(fair=True)]

    def example_data(
        self, rng: np.random.Generator, batch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two features, four members."""
        return rng.normal(size=(batch, 2)), rng.normal(size=(batch, 8))


@register
class EnsembleCRPS(_Ensemble, FeatureLoss):
    """The continuous ranked probability score of an ensemble, feature by feature.

    `mean|xᵢ − y| − ½·mean|xᵢ − xⱼ|` over the m members. One member gives the absolute
    error.

    Args:
        fair: Whether the second mean leaves out each member with itself, which makes
            it the score of the distribution that the members are drawn from. Default
            False, the score of the ensemble as it is.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., members * features): all features of the first member, then of the
    second, and so on. The result is (batch, ...), a mean over the features.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.EnsembleCRPS()
        >>> float(loss(np.array([1.0]), np.array([[0.0, 4.0]])))
        1.0

    Raises:
        ValueError: if `fair` is no bool, a fair score has one member, or `y_pred`
            doesn't hold whole members.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and
    Estimation", 2007; fair: Ferro, "Fair Scores for Ensemble Forecasts", 2014.
    """

    def features(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """One value for each feature."""
        errors, pairs = self._errors(y_true, y_pred)
        members = errors.shape[-2]
        # ½·Σ|xᵢ − xⱼ| = Σ (2i − m − 1)·x₍ᵢ₎, without a table of all pairs.
        ranks = (2.0 * np.arange(1, members + 1) - members - 1.0)[:, None] / pairs
        ranked = ops.sort(errors, axis=-2)
        spread = ops.sum(ops.convert_to_tensor(ranks, errors.dtype) * ranked, axis=-2)
        return ops.mean(absolute(errors), axis=-2) - spread


@register
class EnergyScore(_Ensemble):
    """The score of an ensemble of vectors: `mean‖xᵢ − y‖ − ½·mean‖xᵢ − xⱼ‖`.

    The continuous ranked probability score for several features jointly, so that it
    also measures their correlations. With one feature it is `EnsembleCRPS`.

    Args:
        fair: Whether the second mean leaves out each member with itself, which makes
            it the score of the distribution that the members are drawn from. Default
            False, the score of the ensemble as it is.
        **kwargs: `name`, `reduction`, `dtype` and `ignore`, as in `Loss`.

    Shapes: `y_true` (batch, ..., features), or (batch, ...) for one feature. `y_pred`
    (batch, ..., members * features): all features of the first member, then of the
    second, and so on. The result is (batch, ...).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> loss = kp.losses.EnergyScore()
        >>> members = np.array([[0.0, 0.0, 3.0, 4.0]])
        >>> float(loss(np.array([[0.0, 0.0]]), members))
        1.25

    Raises:
        ValueError: if `fair` is no bool, a fair score has one member, or `y_pred`
            doesn't hold whole members.

    Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and
    Estimation", 2007.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The score, one value per sample."""
        errors, pairs = self._errors(y_true, y_pred)
        gaps = ops.expand_dims(errors, -2) - ops.expand_dims(errors, -3)
        spread = 0.5 * ops.sum(norm(gaps, axis=-1), axis=(-2, -1)) / pairs
        return ops.mean(norm(errors, axis=-1), axis=-1) - spread
