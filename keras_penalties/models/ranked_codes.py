"""Dictionaries whose code has the largest entries: of a sample, of a batch, nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.layers.dead_units import AuxK
from keras_penalties.layers.endpoint import AddLoss
from keras_penalties.layers.top_k import BatchTopK, TopK
from keras_penalties.models.dictionary import DictionaryAutoencoder
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike, as_strength
from keras_penalties.typing import Tensor


@register
class TopKAutoencoder(DictionaryAutoencoder):
    """A dictionary whose code has the k largest entries of each sample.

    `½‖x − x̂‖² + aux·½‖residual − ẑ·D‖²`. The second term brings dead units back, see
    `layers.AuxK`; there is no penalty to weigh. The logs have the second term as
    `dead_units`.

    Args:
        hidden_units: Units of the code, 1 or more.
        k: Entries that a sample keeps, from 1 to `hidden_units`.
        aux: The strength of the second term; None leaves it out. Default 1.0.
        dead_after: A unit is dead after that many steps without a positive entry.
            Default 1000.
        **kwargs: `unit_norm`, `centred` and `seed`, as `DictionaryAutoencoder` has
            them, and what every Keras model takes.

    Shapes: input and output (batch, features).

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.TopKAutoencoder(16, k=3)
        >>> model.compile("adam", "half_sum_squared_error")
        >>> sorted(model.fit(x, x, verbose=0).history)
        ['code_dead', 'code_l0', 'dead_units', 'loss']
        >>> int((keras.ops.convert_to_numpy(model.encode(x)) > 0).sum(1).max())
        3

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Gao et al., "Scaling and Evaluating Sparse Autoencoders", 2024.
    """

    def __init__(
        self,
        hidden_units: int,
        k: float,
        aux: StrengthLike | None = 1.0,
        dead_after: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(hidden_units, **kwargs)
        self.k = self._checked_k(k)
        self.aux = None if aux is None else as_strength(aux, "loss")
        self.dead_after = checks.integer("dead_after", dead_after, 0)

    def _checked_k(self, k: Any) -> Any:
        if checks.integer("k", k) > self.hidden_units:
            checks.refuse("k", f"an integer from 1 to {self.hidden_units}", k)
        return int(k)

    def build_code(self, code_shape: Any, width: int) -> None:
        """Create the activation, and the loss of dead units."""
        self.activation = self.make_activation()
        self.activation.build(code_shape)
        if self.aux is not None:
            self.dead_units = AuxK(
                self.aux,
                after=self.dead_after,
                name="dead_units",
                dtype=self.dtype_policy,
            )
            self.dead_units.build(code_shape)

    def make_activation(self) -> keras.layers.Layer:
        """The layer that keeps the largest entries."""
        return TopK(self.k, name="activation", dtype=self.dtype_policy)

    def make_code(self, pre_activation: Tensor, training: bool | None) -> Tensor:
        """The largest entries."""
        return self.activation(pre_activation)

    def saelens_parts(
        self, biases: list[np.ndarray]
    ) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
        """A code by rank."""
        return "topk", {"b_enc": biases[0]}, {"k": self.k}

    def add_costs(
        self, x: Tensor, pre_activation: Tensor, code: Tensor, output: Tensor
    ) -> None:
        """Add the loss of dead units."""
        if self.aux is not None:
            self.dead_units(
                code,
                pre_activation=pre_activation,
                residual=x - output,
                kernel=ops.cast(self.dictionary, code.dtype),
            )


@register
class BatchTopKAutoencoder(TopKAutoencoder):
    """A dictionary whose code has k entries a sample on average over the batch.

    `½‖x − x̂‖² + aux·½‖residual − ẑ·D‖²`. A sample that is hard to explain has more
    entries than an easy one. In inference an entry counts above a threshold that
    training has found, see `layers.BatchTopK`.

    Args:
        hidden_units: Units of the code, 1 or more.
        k: Entries that a sample keeps on average, above 0, at most `hidden_units`. Need
            not be whole.
        **kwargs: `aux` and `dead_after`, as `TopKAutoencoder` has them, `unit_norm`,
            `centred` and `seed`, as `DictionaryAutoencoder` has them, and what every
            Keras model takes.

    Shapes: input and output (batch, features).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.BatchTopKAutoencoder(16, k=2.5)
        >>> model.compile("adam", "half_sum_squared_error")
        >>> model.fit(x, x, verbose=0).history["code_l0"]
        [2.5]

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Bussmann, Leask and Nanda, "BatchTopK Sparse Autoencoders", 2024.
    """

    def _checked_k(self, k: Any) -> Any:
        return checks.number("k", k, 0.0, self.hidden_units, open_low=True)

    def make_activation(self) -> keras.layers.Layer:
        """The layer that keeps the batch's largest entries."""
        return BatchTopK(self.k, name="activation", dtype=self.dtype_policy)

    def make_code(self, pre_activation: Tensor, training: bool | None) -> Tensor:
        """The batch's largest entries, or in inference those above the threshold."""
        return self.activation(pre_activation, training=training)

    def saelens_parts(
        self, biases: list[np.ndarray]
    ) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
        """A code by one threshold for all units."""
        threshold = np.full(self.hidden_units, float(self.activation.threshold))
        return "jumprelu", {"b_enc": biases[0], "threshold": threshold}, {}


@register
class MatryoshkaAutoencoder(BatchTopKAutoencoder):
    """Dictionaries nested in one another: the first units alone reconstruct too.

    `Σ over widths w of ½‖x − (code[:w]·D[:w] + b)‖²` and the loss of dead units. The
    first units learn what explains most, and are not split when the dictionary grows.
    The code is that of `BatchTopKAutoencoder`; the logs have each narrower width's term
    as `first_<w>_units`.

    Args:
        hidden_units: Units of the code, 1 or more.
        k: Entries that a sample keeps on average, above 0, at most `hidden_units`.
        widths: How many of the first units each narrower dictionary has: rising whole
            numbers, below `hidden_units`.
        **kwargs: `aux` and `dead_after`, as `TopKAutoencoder` has them, `unit_norm`,
            `centred` and `seed`, as `DictionaryAutoencoder` has them, and what every
            Keras model takes.

    Shapes: input and output (batch, features).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.MatryoshkaAutoencoder(16, k=3, widths=[4, 8], aux=None)
        >>> model.compile("adam", "half_sum_squared_error")
        >>> sorted(model.fit(x, x, verbose=0).history)[2:4]
        ['first_4_units', 'first_8_units']

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Bussmann et al., "Learning Multi-Level Features with Matryoshka Sparse
    Autoencoders", 2025.
    """

    def __init__(
        self, hidden_units: int, k: float, widths: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(hidden_units, k, **kwargs)
        self.widths = [checks.integer("widths", width) for width in widths]
        rising = sorted({*self.widths, self.hidden_units})
        if [*self.widths, self.hidden_units] != rising or len(rising) < 2:
            checks.refuse(
                "widths", f"rising whole numbers below {self.hidden_units}", widths
            )

    def build_code(self, code_shape: Any, width: int) -> None:
        """Create the losses of the narrower dictionaries too."""
        super().build_code(code_shape, width)
        self.nested = [
            AddLoss("half_sum_squared_error", name=f"first_{n}_units")
            for n in self.widths
        ]
        for layer in self.nested:
            layer.build((None, width))

    def add_costs(
        self, x: Tensor, pre_activation: Tensor, code: Tensor, output: Tensor
    ) -> None:
        """Add the losses of the narrower dictionaries."""
        super().add_costs(x, pre_activation, code, output)
        directions = ops.cast(self.dictionary, code.dtype)
        found, start = ops.cast(self.decoder.bias, code.dtype), 0
        for end, layer in zip(self.widths, self.nested, strict=True):
            found = found + ops.matmul(code[:, start:end], directions[start:end])
            layer(found, y_true=x)
            start = end
