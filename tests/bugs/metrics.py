"""Metrics with one fault each."""

from __future__ import annotations

from keras import ops

from bugs.plant import caught_by
from keras_penalties.metrics import ActiveUnits, DeadShare, ExplainedVariance
from keras_penalties.registry import register


@caught_by("a_metric_reloads_as_it_was", threshold=0.3)
class LosesItsThreshold(ActiveUnits):
    def get_config(self):
        return {**super().get_config(), "threshold": 0.0}


@caught_by("a_metric_of_parts_is_that_of_the_whole")
class MeanOfTheBatch(ExplainedVariance):
    """The variance around the mean of each batch, as many libraries have it."""

    def _add(self, x, error, w):
        super()._add(x - ops.sum(w * x, 0) / ops.maximum(ops.sum(w), 1.0), error, w)


@caught_by("a_metric_of_parts_is_that_of_the_whole")
class DeadInTheLastBatch(DeadShare):
    def add_rows(self, active, weights):
        self.reset_state()
        super().add_rows(active, weights)


@caught_by("a_metric_forgets_at_a_reset")
class NeverForgets(DeadShare):
    def reset_state(self):
        pass


@caught_by("a_weight_is_how_often_a_row_counts")
class DividesByTheRows(ActiveUnits):
    def add_rows(self, active, weights):
        super().add_rows(active, weights)
        self.count.assign_add(ops.sum(1.0 - weights))


@caught_by("a_row_without_weight_has_no_part")
class NothingTimesNaN(ExplainedVariance):
    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, sample_weight)
        gone = 0.0 * ops.sum(ops.convert_to_tensor(y_pred))
        self.residual.assign_add(ops.cast(gone, self.wide))


@caught_by("a_row_without_weight_has_no_part")
class CountsWhatIsMasked(DeadShare):
    def row_weights(self, rows, sample_weight, mask):
        return super().row_weights(rows, sample_weight, None)


@caught_by("a_metric_compiles_by_its_name")
@register(package="bugs")
class MultipliesByItsBatches(ActiveUnits):
    """Right for one batch."""

    def update_state(self, *code, sample_weight=None):
        super().update_state(*code, sample_weight=sample_weight)
        self.total.assign_add(ops.cast(len(code) - 1, self.wide))
