"""Penalties, losses and layers with one fault each, and the law that must find it."""

from __future__ import annotations

from bugs.plant import caught_by
from keras import ops
from strategies import WIDE

from keras_penalties import numerics
from keras_penalties.layers import ActivityPenalty
from keras_penalties.losses import HalfSumSquaredError
from keras_penalties.penalties import (
    L1,
    L2,
    MCP,
    SCAD,
    Box,
    ElasticNet,
    Grouped,
    HuberL1,
    KLSparsity,
    LogSum,
    Lp,
    NonNegative,
    Simplex,
    Sum,
    TotalVariation,
)

# Value.


@caught_by("strength_multiplies_the_value", 0.5)
class CountsHalf(L2):
    def __call__(self, x):
        return 0.5 * super().__call__(x)


@caught_by("strength_multiplies_the_value", [L1(0.5), L2(0.5)])
class ForgetsAPart(Sum):
    def __mul__(self, factor):
        return Sum([self.penalties[0] * factor, *self.penalties[1:]])

    __rmul__ = __mul__


@caught_by("strength_changes_nothing_else", 0.5)
class WidthTimesStrength(MCP):
    """The literature's (λ, γ) taken as it is."""

    def entrywise(self, x):
        return MCP(1.0, self.width * self.strength).entrywise(x)


@caught_by("the_value_is_one_number", 0.5)
class OneValuePerRow(L2):
    def compute_value(self, x):
        return ops.sum(ops.square(x), axis=-1)


@caught_by("a_separable_value_is_a_sum_over_entries", 0.5)
class MeanForSum(L1):
    def compute_value(self, x):
        return ops.mean(self.entrywise(x))


@caught_by("a_separable_value_is_a_sum_over_entries", 0.5)
class ChargesZeros(L1):
    def entrywise(self, x):
        return 1.0 + numerics.absolute(x)


@caught_by("an_even_value_has_no_sign", 0.5)
class ForgetsTheSign(L1):
    def entrywise(self, x):
        return x


@caught_by("a_statistic_is_the_same_for_the_batch_repeated", 0.5)
class SumsOverTheBatch(KLSparsity):
    def compute_value(self, x):
        return ops.cast(ops.shape(x)[0], x.dtype) * super().compute_value(x)


@caught_by("a_statistic_is_the_same_for_the_batch_repeated", 0.5)
class SpreadAsMean(KLSparsity):
    """The batch's variance is no function of its mean."""

    def compute_value(self, x):
        return ops.sum(ops.mean(ops.square(x - ops.mean(x, axis=0)), axis=0))


# Gradient.


@caught_by("the_gradient_at_zero_is_zero", 0.5)
class SlopeOneAtZero(L1):
    """As on JAX, of the plain |x|."""

    def entrywise(self, x):
        return ops.where(x >= 0, x, -x)


@caught_by("the_gradient_at_a_kink_is_the_smallest", 0.5)
class HingeWithTheSteepSlope(NonNegative):
    def entrywise(self, x):
        return ops.where(x <= 0, -x, ops.zeros_like(x))


@caught_by("the_gradient_is_the_secant_limit", 0.5)
class HoldsAFactorFixed(L2):
    def entrywise(self, x):
        return x * ops.stop_gradient(x)


@caught_by("the_gradient_is_the_secant_limit", 0.5)
class TwiceTheSlope(HuberL1):
    def entrywise(self, x):
        right = super().entrywise(x)
        return right + (right - ops.stop_gradient(right))


@caught_by("the_gradient_is_finite_everywhere", 0.5)
class InfiniteSlopeAtZero(Lp):
    def entrywise(self, x):
        return ops.power(ops.absolute(x), self.p)


@caught_by("the_gradient_is_finite_everywhere", L1(0.5), axis=0)
class RootOfZero(Grouped):
    def compute_value(self, x):
        squares = ops.sum(ops.square(self._layout.rows(x)), axis=1)
        return ops.sum(ops.sqrt(squares))


@caught_by("the_gradient_supports_the_value", 0.5)
class CalledConvex(MCP):
    convex = True
    concavity = 0.0


@caught_by("a_separable_concavity_is_the_least", 0.5)
class HalfOfTheConcavity(SCAD):
    @property
    def concavity(self):
        return 0.5 * super().concavity


# Masks.


@caught_by("what_is_masked_is_absent", 0.5)
class CountsMaskedRows(KLSparsity):
    def compute_masked_value(self, x, mask):
        return self.compute_value(x)


@caught_by("what_is_masked_is_absent", 0.5)
class ChargesForWhatIsMasked(HuberL1):
    def compute_masked_value(self, x, mask):
        return ops.sum(self.entrywise(ops.where(mask, x, ops.ones_like(x))))


# Proximal map.


@caught_by("prox_without_a_step_stays", 0.5)
class MovesWithoutAStep(L1):
    def compute_prox(self, x, t):
        return numerics.soft_threshold(x, t + 1e-3)


@caught_by("strength_changes_nothing_else", 0.5)
class StrengthTwice(L1):
    def compute_prox(self, x, t):
        return numerics.soft_threshold(x, self.strength * t)


@caught_by("prox_minimises", 0.5)
class ForgetsKerassFactor(L2):
    """The prox of ½x², where Keras has x²."""

    def compute_prox(self, x, t):
        return x / (1.0 + t)


@caught_by("prox_minimises", 0.5)
class OnePercentTooFar(L1):
    def compute_prox(self, x, t):
        return numerics.soft_threshold(x, 1.01 * t)


@caught_by("prox_minimises", L1(0.5), axis=0, weights="sqrt_size")
class ForgetsTheWeights(Grouped):
    def compute_prox(self, x, t):
        return Grouped(self.penalty, axis=self.axis).prox(x, t)


@caught_by("prox_minimises", [L1(0.5), Grouped(L1(0.5), axis=0)])
class TheOtherOrder(Sum):
    """The groups first, then the entries."""

    def prox_parts(self, x, ts):
        return self.penalties[0].prox(self.penalties[1].prox(x, ts[1]), ts[0])


@caught_by("prox_beats_a_grid", 0.5, width=2.0)
class StopsAtTheConvexRange(MCP):
    """As skglm 0.5: beyond it, everything becomes 0."""

    def compute_prox(self, x, t):
        return ops.where(t < self.width, super().compute_prox(x, t), 0.0 * x)


@caught_by("prox_beats_a_grid", 0.5)
class SoftBeyondTheConvexRange(SCAD):
    """As pyproximal: the lower of two minima is not looked for."""

    def compute_prox(self, x, t):
        soft = numerics.soft_threshold(x, t)
        return ops.where(t < 1.0 / self.concavity, super().compute_prox(x, t), soft)


@caught_by("prox_beats_a_grid", 0.5)
class KeepsALocalMinimum(LogSum):
    def compute_prox(self, x, t):
        size, total = ops.absolute(x), ops.absolute(x) + self.epsilon
        root = ops.sqrt(numerics.positive_part(ops.square(total) - 4.0 * t))
        found = numerics.positive_part(0.5 * (size - self.epsilon + root))
        return ops.sign(x) * ops.where(ops.square(total) > 4 * t, found, 0.0 * x)


@caught_by("prox_minimises_with_one_step_for_each_entry", 0.5)
class OneStepForAll(L1):
    def compute_prox(self, x, t):
        return numerics.soft_threshold(x, ops.mean(t))


@caught_by("prox_minimises_with_one_step_for_each_entry", L1(0.5), axis=0)
class LargestStepOfTheGroup(Grouped):
    def compute_prox(self, x, t):
        each = self._layout.rows(ops.broadcast_to(t, x.shape))
        rows = self._layout.rows(x)
        return self._layout.joined(
            self._scaled(rows, (1,), ops.max(each, axis=1, keepdims=True)), x
        )


if WIDE == "float32":  # in float64 enough digits are left

    @caught_by("prox_is_right_for_any_spread_of_steps")
    class ShiftsByTheLargest(Simplex):
        """All entries by t times the largest x/t, which is huge where a t is tiny."""

        def nearest(self, x, t):
            return super().nearest(x - t * ops.max(x / t), t)


@caught_by("prox_is_right_for_any_spread_of_steps", 0.5)
class RunningSumsOfHugeWeights(TotalVariation):
    def compute_prox(self, x, t):
        if t.shape == ():
            return super().compute_prox(x, t)
        return super().compute_prox(x, ops.maximum(t, 1e-3 * ops.max(t)))


@caught_by("prox_of_an_even_value_is_odd", 0.5)
class ThresholdsOneSide(L1):
    def compute_prox(self, x, t):
        return ops.where(x > 0, numerics.soft_threshold(x, t), x)


@caught_by("prox_is_firmly_non_expansive", 0.5)
class HardForSoft(L1):
    def compute_prox(self, x, t):
        return ops.where(ops.absolute(x) > t, x, 0.0 * x)


@caught_by("an_unknown_prox_raises", 0.5)
class HidesItsProx(L1):
    has_prox = False


# Dtypes and sizes.


@caught_by("every_dtype_is_computed_wide", 0.5)
class SumsInHalfPrecision(L2):
    def compute_value(self, x):
        return ops.sum(ops.square(ops.cast(x, "float16")))


@caught_by("extremes_are_never_nan", 0.5, l1_ratio=1.0)
class ZeroTimesInfinity(ElasticNet):
    def _mixed(self, of, x):
        squares = 0.5 * (1.0 - self.l1_ratio) * of(ops.square(x))
        return self.l1_ratio * of(numerics.absolute(x)) + squares


if WIDE == "float64":  # elsewhere nothing tells what the true value is

    @caught_by("extremes_are_never_nan", L1(0.5), axis=0)
    class OverflowsInside(Grouped):
        def compute_value(self, x):
            squares = ops.sum(ops.square(self._layout.rows(x)), axis=1)
            return ops.sum(ops.sqrt(squares + 1e-30))


@caught_by("extremes_are_never_nan", 0.5)
class ProxOverflows(L1):
    def compute_prox(self, x, t):
        size = ops.sqrt(ops.square(x))
        return x * numerics.positive_part(size - t) / size


# Names and configs.


@caught_by("config_makes_an_equal_penalty", 0.5, width=2.0)
class StoresSomethingElse(MCP):
    def __init__(self, strength=0.01, width=1.0):
        super().__init__(strength, width)
        self.width = 2.0 * width


@caught_by("config_makes_an_equal_penalty", 0.5, width=2.0)
class LosesAnArgument(MCP):
    def get_config(self):
        return {"strength": self.strength}


@caught_by("config_makes_an_equal_penalty", 0.5)
class EqualOnlyToItself(L1):
    def __eq__(self, other):
        return self is other

    __hash__ = L1.__hash__


@caught_by("config_makes_an_equal_penalty", 0.5)
class HashedByIdentity(L1):
    __hash__ = object.__hash__


@caught_by("a_bad_strength_is_refused", 0.5)
class TakesAnyStrength(L1):
    def __init__(self, strength=0.01):
        self.strength = strength


@caught_by("a_weight_slot_trains", 0.5)
class HalfTheSlopeInASlot(L1):
    """Its laws' gradient is right: only what a slot calls is not."""

    def __call__(self, x):
        half = 0.5 * super().__call__(x)
        return half + ops.stop_gradient(half)


@caught_by("what_has_no_slope_is_refused_where_a_gradient_would_act", 0.0)
class ActsInASlot(Box):
    def __call__(self, x):
        return ops.sum(ops.square(x))


@caught_by("an_indicator_is_0_in_its_set_only", 0.0)
class ChargesNothingOutside(Box):
    def compute_value(self, x):
        return ops.zeros((), x.dtype)


@caught_by("a_statistic_is_refused_in_a_slot", 0.5)
class DividedByTheBatch(KLSparsity):
    def __call__(self, x):
        return self.strength * self.value(x)


# Losses.


@caught_by("a_loss_has_one_value_for_each_sample")
class OneValueForAll(HalfSumSquaredError):
    def call(self, y_true, y_pred):
        return ops.mean(super().call(y_true, y_pred))


@caught_by("a_loss_reduces_and_weighs_as_keras_does")
class MixesTheSamples(HalfSumSquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(y_true, y_pred)


@caught_by("a_loss_has_the_secants_slope")
class HoldsThePredictionFixed(HalfSumSquaredError):
    def call(self, y_true, y_pred):
        error = y_pred - y_true
        return ops.sum(error * ops.stop_gradient(error), axis=-1)


@caught_by("a_loss_is_finite_in_half_precision")
class OverflowsInHalfPrecision(HalfSumSquaredError):
    def call(self, y_true, y_pred):
        large = ops.cast(1e3 * y_pred, "float16")
        return 1e-6 * ops.cast(ops.sum(ops.square(large), axis=-1), y_pred.dtype)


@caught_by("a_loss_reloads_as_it_was")
class LosesItsDtype(HalfSumSquaredError):
    """As Keras' own losses do."""

    def get_config(self):
        return {"name": self.name, "reduction": self.reduction}


@caught_by("a_loss_reloads_as_it_was")
class LosesItsScale(HalfSumSquaredError):
    """As Keras' own Huber loses its delta."""

    def __init__(self, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name, reduction, dtype)
        self.scale = 1.0 if dtype is None else 2.0

    def get_config(self):
        return {**super().get_config(), "dtype": None}


@caught_by("weights_and_masks_belong_to_samples")
class WeighsAlongTheLastAxis(HalfSumSquaredError):
    """As Keras does with a weight for each sample of two axes."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None and sample_weight.shape == y_pred.shape[1:2]:
            weight = ops.convert_to_tensor(sample_weight)
            sample_weight = ops.broadcast_to(weight, y_pred.shape[:-1])
        return super().__call__(y_true, y_pred, sample_weight)


@caught_by("what_is_absent_has_no_part")
class LeavesTheAbsentInputs(HalfSumSquaredError):
    """So that 0 is multiplied by an infinite slope."""

    def unreduced(self, y_true, y_pred, sample_weight=None, mask=None):
        y_pred = ops.convert_to_tensor(y_pred)
        return self.call(ops.cast(y_true, y_pred.dtype), y_pred), None


@caught_by("an_unknown_target_has_no_part")
class CountsTheUnknown(HalfSumSquaredError):
    def unreduced(self, *args):
        values, known = super().unreduced(*args)
        if known is not None:
            values = ops.where(known, values, 0.0)
        return values, None


# Layers.


@caught_by("a_layer_reloads_from_its_config", "l1(0.5)")
class ForgetsItsPenalty(ActivityPenalty):
    def get_config(self):
        return {**super().get_config(), "penalty": "l1(0.1)"}


@caught_by("a_layer_works_in_mixed_precision", "l1(0.5)")
class ComputesInFullPrecision(ActivityPenalty):
    def call(self, inputs, training=None):
        return ops.cast(super().call(inputs, training=training), "float32")


@caught_by("a_layer_knows_its_output_shape", "l1(0.5)")
class SaysAnotherShape(ActivityPenalty):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 7)
