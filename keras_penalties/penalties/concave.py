"""Penalties that are concave away from 0: zeros as L1 makes them, with less bias.

Each is a sum over single entries. Their proximal maps are exact for every t: beyond the
convex range, where the map jumps, they find the lower of the two minima.
"""

from __future__ import annotations

from typing import Self

from keras import ops

from keras_penalties import checks
from keras_penalties.numerics import absolute, positive_part, soft_threshold
from keras_penalties.penalties.base import Separable
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike
from keras_penalties.typing import Tensor


@register
class MCP(Separable):
    """The minimax concave penalty: `Σ |x| − x²/(2·width)`, flat from |x| = width on.

    Entries beyond the width cost the constant width/2 and are not shrunk. The classical
    (λ, γ) is `MCP(λ, width=γ·λ)`; `width` to infinity gives L1.

    Args:
        strength: The multiplier λ, the slope at 0; 0 or more. Default 0.01.
        width: From where on the penalty is flat, above 0. Default 1.0.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.MCP(0.5, width=2.0)(np.array([5.0, -1.0])))
        0.875

    Raises:
        ValueError: if `width` is not above 0.

    Source: Zhang, "Nearly Unbiased Variable Selection under Minimax Concave Penalty",
    2010.
    """

    convex = False
    joint = "entries"

    def __init__(self, strength: StrengthLike = 0.01, width: float = 1.0) -> None:
        super().__init__(strength)
        self.width = checks.positive("width", width)

    @property
    def concavity(self) -> float:
        """`1/width`."""
        return 1.0 / self.width

    def entrywise(self, x: Tensor) -> Tensor:
        """`|x| − x²/(2·width)` to |x| = width, then `width/2`."""
        size = absolute(x)
        # Not as a product of two `minimum`s: XLA needs five times as long for that.
        curved = size < self.width
        inner = ops.where(curved, size, ops.zeros_like(size))  # its square is finite
        inner = inner - 0.5 / self.width * ops.square(inner)
        return ops.where(curved, inner, 0.5 * self.width)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The firm threshold for t < width, and else the hard one at `√(t·width)`."""
        size, room = ops.absolute(x), self.width - t
        convex = room > 0
        slope = self.width / ops.where(convex, room, ops.ones_like(room))
        firm = ops.minimum(slope * positive_part(size - t), size)
        hard = ops.where(size > ops.sqrt(t * self.width), size, ops.zeros_like(size))
        return ops.sign(x) * ops.where(convex, firm, hard)

    @classmethod
    def examples(cls) -> list[Self]:
        """A wide one, and one that is flat soon."""
        return [cls(0.5, width=3.0), cls(0.5, width=0.4)]


@register
class SCAD(Separable):
    """The smoothly clipped absolute deviation: L1 to a knee, then a blend, then flat.

    `Σ ∫₀^|x| min(1, max(0, ratio·knee − u)/((ratio − 1)·knee)) du`. That is |x| to
    |x| = knee; then the slope falls along a line; from |x| = ratio·knee on it costs
    `knee·(ratio + 1)/2`. The classical (λ, a) is `SCAD(λ, knee=λ, ratio=a)`.

    Args:
        strength: The multiplier λ, the slope at 0; 0 or more. Default 0.01.
        knee: To where it is L1, above 0. Default 1.0.
        ratio: From how many knees on it is flat, above 1. Default 3.7, the source's.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.SCAD(1.0, knee=1.0, ratio=3.0)(np.array([9.0, -1.0])))
        3.0

    Raises:
        ValueError: if `knee` is not above 0 or `ratio` not above 1.

    Source: Fan and Li, "Variable Selection via Nonconcave Penalized Likelihood and its
    Oracle Properties", 2001.
    """

    convex = False
    joint = "entries"

    def __init__(
        self, strength: StrengthLike = 0.01, knee: float = 1.0, ratio: float = 3.7
    ) -> None:
        super().__init__(strength)
        self.knee = checks.positive("knee", knee)
        self.ratio = checks.number("ratio", ratio, 1.0, open_low=True)

    @property
    def concavity(self) -> float:
        """`1/((ratio − 1)·knee)`."""
        return 1.0 / ((self.ratio - 1.0) * self.knee)

    def entrywise(self, x: Tensor) -> Tensor:
        """|x|, less the parabola between the knee and `ratio·knee`, then flat."""
        inner = ops.minimum(absolute(x), self.ratio * self.knee)
        return inner - 0.5 * self.concavity * ops.square(
            positive_part(inner - self.knee)
        )

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """Three pieces for t < (ratio − 1)·knee, and else a jump from soft to x."""
        size, knee, end = ops.absolute(x), self.knee, self.ratio * self.knee
        soft, room = positive_part(size - t), end - knee - t
        convex = room > 0
        slope = (end - knee) / ops.where(convex, room, ops.ones_like(room))
        blend = ops.minimum(end - slope * (end - size), size)
        smooth = ops.where(size > knee + t, blend, soft)
        # Where the minima at the soft threshold and at x are equally low.
        flat = end + knee
        jump = ops.where(t < flat, 0.5 * (t + flat), ops.sqrt(t * flat))
        abrupt = ops.where(size > jump, size, soft)
        return ops.sign(x) * ops.where(convex, smooth, abrupt)

    @classmethod
    def examples(cls) -> list[Self]:
        """The source's ratio, and a sharper blend."""
        return [cls(0.5), cls(0.5, knee=0.3, ratio=2.2)]


@register
class CappedL1(Separable):
    """L1 up to a cap, and flat from there on: `Σ min(|x|, cap)`.

    Entries beyond the cap cost a constant and are not shrunk, as with MCP and SCAD. But
    the slope jumps at the cap, so the proximal map jumps for every t. With a large cap
    it is L1; with a small one, and the strength divided by the cap, nearly L0.

    Args:
        strength: The multiplier, the slope at 0; 0 or more. Default 0.01.
        cap: From where on the penalty is flat, above 0. Default 1.0.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> float(kp.penalties.CappedL1(0.5, cap=2.0)(np.array([5.0, -1.0])))
        1.5

    Raises:
        ValueError: if `cap` is not above 0.

    Source: Zhang, "Analysis of Multi-stage Convex Relaxation for Sparse
    Regularization", 2010.
    """

    convex = False
    joint = "entries"

    def __init__(self, strength: StrengthLike = 0.01, cap: float = 1.0) -> None:
        super().__init__(strength)
        self.cap = checks.positive("cap", cap)

    def entrywise(self, x: Tensor) -> Tensor:
        """`min(|x|, cap)`, with the slope 0 at the cap."""
        size = absolute(x)
        return ops.where(size < self.cap, size, self.cap)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The soft threshold up to a jump, then x. A tie goes to the soft threshold."""
        # Where the minima below the cap and beyond are equally low.
        far = ops.sqrt(2.0 * self.cap * t)
        jump = ops.where(t < 2.0 * self.cap, self.cap + 0.5 * t, far)
        return ops.where(ops.absolute(x) > jump, x, soft_threshold(x, t))

    @classmethod
    def examples(cls) -> list[Self]:
        """A high cap, and a low one."""
        return [cls(0.5), cls(0.5, cap=0.25)]


@register
class LogSum(Separable):
    """The logarithm, between L1 and a count of nonzeros: `Σ log(1 + |x|/epsilon)`.

    Args:
        strength: The multiplier, 0 or more. Default 0.01. The slope at 0 is
            strength/epsilon.
        epsilon: What counts as small, above 0. Default 1.0.

    Shapes: any, also a scalar.

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> round(float(kp.penalties.LogSum(1.0, epsilon=0.5)(np.array([1.5, 0.0]))), 4)
        1.3863

    Raises:
        ValueError: if `epsilon` is not above 0.

    Source: Candès, Wakin and Boyd, "Enhancing Sparsity by Reweighted ℓ1 Minimization",
    2008.
    """

    convex = False
    joint = "entries"

    def __init__(self, strength: StrengthLike = 0.01, epsilon: float = 1.0) -> None:
        super().__init__(strength)
        self.epsilon = checks.positive("epsilon", epsilon)

    @property
    def concavity(self) -> float:
        """`1/epsilon²`."""
        return self.epsilon**-2

    def entrywise(self, x: Tensor) -> Tensor:
        """`log(1 + |x|/epsilon)`."""
        return ops.log1p(absolute(x) / self.epsilon)

    def compute_prox(self, x: Tensor, t: Tensor) -> Tensor:
        """The larger root of `(u − |x|)·(epsilon + u) + t`, or 0 if that is lower."""
        size, epsilon, root_t = ops.absolute(x), self.epsilon, ops.sqrt(t)
        # √((|x| + epsilon)² − 4t), which must not overflow.
        total = size + epsilon
        gap = ops.sqrt(positive_part(total - 2 * root_t)) * ops.sqrt(total + 2 * root_t)
        rough = positive_part(0.5 * (size - epsilon + gap))
        root = positive_part(size - t / (epsilon + rough))  # rounds less than `rough`
        ratio = ops.minimum(root / epsilon, 1e38)  # t may be 0
        saved = root * (size - 0.5 * root) - t * ops.log1p(ratio)
        better = (total >= 2 * root_t) & (saved >= 0)
        return ops.where(better, ops.sign(x) * root, ops.zeros_like(x))

    @classmethod
    def examples(cls) -> list[Self]:
        """A gentle one, and one near to counting nonzeros."""
        return [cls(0.5), cls(0.5, epsilon=0.1)]
