"""A sparse autoencoder, the first use of this package."""

from __future__ import annotations

import math
from typing import Any, Self

import keras
from keras import ops

from keras_penalties import checks
from keras_penalties.config import LayerFromSignature
from keras_penalties.layers.activity import ActivityPenalty, BiasUnit
from keras_penalties.layers.penalized import Penalized
from keras_penalties.penalties.activity import KLSparsity
from keras_penalties.penalties.separable import L2
from keras_penalties.registry import register
from keras_penalties.typing import Tensor

PRESETS: dict[str, dict[str, Any]] = {
    "tutorial": {"weight_decay": 0.1, "sparsity": 0.0, "bias_unit": True},
    "tutorial_sparse": {"weight_decay": 0.1, "sparsity": 0.001, "bias_unit": True},
}
"""The tutorial's settings, meant for sums over all samples: see `from_preset`."""


@register
class SparseAutoencoder(LayerFromSignature, keras.Model):
    """A sigmoid encoder and decoder with weight decay and a sparse code.

    `loss + α/2·(‖W₁‖² + ‖W₂‖²) + β·Σ KL(ρ ‖ mean activation)`, where the loss is what
    `compile` is given: with `"half_sum_squared_error"` it is the mean over samples of
    `½·Σ(x − x̂)²`. Each term is shown in the logs: `encoder_kernel_l2`,
    `decoder_kernel_l2`, `code_kl_sparsity`.

    The strengths are on the scale of a mean over samples. Beside a *sum* over m samples
    they would be m times as large, which `from_preset` explains.

    Args:
        hidden_units: Units of the code. Default None: three times the input's width.
        weight_decay: α, 0 or more; 0 leaves the term out. Default 1e-4.
        sparsity: β, 0 or more; 0 leaves the term out. Default 3.0.
        rate: ρ, the mean activation that each unit is drawn to, in (0, 1). The hidden
            biases start at logit(ρ): if they start at 0, Adam stays for long at a point
            where the mean of every unit is ρ and the output is the mean image. Default
            0.1.
        bias_unit: Write the biases as the textbook does, as weights on a unit that is
            always one, joined to the input and to the code, so that the weight decay
            reaches them too. Default False: ordinary biases without decay.

    Shapes: input and output (batch, features), with entries in [0, 1].

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.SparseAutoencoder()
        >>> model.compile("adam", loss="half_sum_squared_error")
        >>> history = model.fit(x, x, verbose=0)
        >>> model.encode(x).shape[-1], sorted(history.history)[0]
        (24, 'code_kl_sparsity')

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Ng, "Sparse Autoencoder", CS294A lecture notes, 2011.
    """

    def __init__(
        self,
        hidden_units: int | None = None,
        weight_decay: float = 1e-4,
        sparsity: float = 3.0,
        rate: float = 0.1,
        bias_unit: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_units is not None:
            hidden_units = checks.integer("hidden_units", hidden_units)
        self.hidden_units = hidden_units
        self.weight_decay = checks.non_negative("weight_decay", weight_decay)
        self.sparsity = checks.non_negative("sparsity", sparsity)
        self.rate = checks.fraction("rate", rate)
        self.bias_unit = bool(bias_unit)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """A model with the tutorial's settings: α = 0.1 and ρ = 0.1, as it wrote them.

        They are meant beside a sum over all samples: compile with
        `keras_penalties.losses.HalfSumSquaredError(reduction="sum")` and train with
        full batches. β counts once, not once a sample, so its 0.001 has next to no
        effect: m·β, or the class's defaults with a mean, make the code sparse.

        Args:
            name: `"tutorial"`, without sparsity, or `"tutorial_sparse"`.
            **overrides: Arguments of the class that are to differ.

        Raises:
            ValueError: for another name.

        Example:
            >>> import keras_penalties as kp
            >>> model = kp.models.SparseAutoencoder.from_preset("tutorial")
            >>> model.weight_decay, model.bias_unit
            (0.1, True)
        """
        checks.one_of("name", name, PRESETS)
        return cls(**{**PRESETS[name], **overrides})

    def build(self, input_shape: Any) -> None:
        """Create the layers for the width of the input."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            checks.refuse("input_shape", "(batch, features)", tuple(input_shape))
        width = input_shape[-1]
        hidden = 3 * width if self.hidden_units is None else self.hidden_units
        start = math.log(self.rate / (1.0 - self.rate))
        dtype = self.dtype_policy
        self.encoder = self._dense("encoder", hidden, start)
        self.code = (
            ActivityPenalty(
                KLSparsity(self.sparsity, self.rate), name="code", dtype=dtype
            )
            if self.sparsity
            else keras.layers.Identity(name="code", dtype=dtype)
        )
        self.decoder = self._dense("decoder", width, 0.0)
        self.join_one = BiasUnit(name="bias_unit", dtype=dtype)
        extra = int(self.bias_unit)
        self.encoder.build((None, width + extra))
        self.code.build((None, hidden))
        self.decoder.build((None, hidden + extra))
        self.built = True

    def _dense(self, name: str, units: int, start: float) -> keras.layers.Layer:
        dense = keras.layers.Dense(
            units,
            activation="sigmoid",
            use_bias=not self.bias_unit,
            kernel_initializer=_last_row(start) if self.bias_unit else "glorot_uniform",
            bias_initializer=keras.initializers.Constant(start),
            name=name,
            dtype=self.dtype_policy,
        )
        if not self.weight_decay:
            return dense
        decay = {"kernel": L2(self.weight_decay / 2.0)}
        return Penalized(dense, weights=decay, dtype=self.dtype_policy)

    def encode(self, x: Tensor) -> Tensor:
        """The code of `x`: (batch, features) to (batch, hidden_units)."""
        x = ops.convert_to_tensor(x, self.compute_dtype)
        return self.code(self.encoder(self.join_one(x) if self.bias_unit else x))

    def decode(self, code: Tensor) -> Tensor:
        """Reconstruct from a code: (batch, hidden_units) to (batch, features)."""
        code = ops.convert_to_tensor(code, self.compute_dtype)
        return self.decoder(self.join_one(code) if self.bias_unit else code)

    @property
    def dictionary(self) -> Tensor:
        """What each unit adds before the last sigmoid, (hidden_units, features)."""
        dense = getattr(self.decoder, "layer", self.decoder)  # or `Penalized` around it
        kernel = ops.convert_to_tensor(dense.kernel)
        return kernel[:-1] if self.bias_unit else kernel

    def call(self, inputs: Tensor) -> Tensor:
        """The reconstruction of the input."""
        return self.decode(self.encode(inputs))


def _last_row(value: float) -> Any:
    """An initializer whose last row, the bias in a kernel that has one, is `value`."""
    glorot = keras.initializers.GlorotUniform()

    def initialize(shape: Any, dtype: Any = None) -> Tensor:
        rows = glorot(shape, dtype=dtype)[:-1]
        return ops.concatenate([rows, ops.full((1, shape[1]), value, dtype)], axis=0)

    return initialize
