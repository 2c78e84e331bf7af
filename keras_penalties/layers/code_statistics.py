"""How sparse a code is, in the logs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from keras import ops

from keras_penalties import compat
from keras_penalties.config import LayerFromSignature
from keras_penalties.hosting.logs import Reading
from keras_penalties.masks import sum_and_count
from keras_penalties.registry import register
from keras_penalties.typing import Tensor


@register
class CodeStatistics(LayerFromSignature):
    """Passes a code through and shows in the logs how sparse it is.

    `<layer>_l0` is the mean number of units that are not zero in a row, `<layer>_dead`
    the share of units that were zero in all rows, both since the epoch began, or the
    evaluation.

    Shapes: (batch, ..., units), unchanged. All axes except the last one count as rows.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> layer = kp.layers.CodeStatistics(name="code")
        >>> model = keras.Sequential([keras.Input((4,)), layer])
        >>> model.compile(loss="mse")
        >>> x = np.array([[0, 0, 1, 0], [0, 1, 2, 0]], "float32")
        >>> found = model.evaluate(x, x, verbose=0, return_dict=True)
        >>> found["code_l0"], found["code_dead"]
        (1.5, 0.5)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        # In a plain object: Keras would search a list for weights to save.
        self._shown = SimpleNamespace(readings=None, traced=None)

    def build(self, input_shape: Any) -> None:
        """Create the sums: how often each unit was on, and the number of rows last."""
        self.sums = self.add_weight(
            shape=(input_shape[-1] + 1,),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="sum",
            name="sums",
        )
        self._shown.readings = [
            Reading(f"{self.name}_l0", lambda: self._figures()[0], self._reset),
            Reading(f"{self.name}_dead", lambda: self._figures()[1], self._reset),
        ]
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        """The two figures."""
        return [*(self._shown.readings or []), *super().metrics]

    def call(self, inputs: Tensor) -> Tensor:
        """The code, counted."""
        if compat.losses_wanted():
            self.sums.assign_add(ops.stop_gradient(self._counted(inputs)))
            if compat.in_stateless_scope():
                self._shown.traced = ops.convert_to_tensor(self.sums)
        return inputs

    def _counted(self, x: Tensor) -> Tensor:
        active, rows = sum_and_count(ops.cast(x != 0, "float32"), compat.keras_mask(x))
        return ops.append(active, rows)

    def _figures(self) -> tuple[Tensor, Tensor]:
        """L0 and the share of dead units, also inside a traced training step on JAX.

        There Keras computes the logs in a scope that knows no layer's weights.
        """
        sums = self._shown.traced if compat.in_stateless_scope() else None
        if sums is None:
            sums = ops.convert_to_tensor(self.sums)
        dead = ops.mean(ops.cast(sums[:-1] == 0, "float32"))
        seen = ops.cast(sums[-1] > 0, "float32")
        return ops.divide_no_nan(ops.sum(sums[:-1]), sums[-1]), dead * seen

    def _reset(self) -> None:
        self.sums.assign(np.zeros(self.sums.shape, "float32"))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The code's."""
        return input_shape

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances that the laws run over."""
        return [cls()]
