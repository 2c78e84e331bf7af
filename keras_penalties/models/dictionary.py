"""What the autoencoders that learn a dictionary have in common."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks
from keras_penalties.activations.stream import ActivationStream, statistics_of
from keras_penalties.config import LayerFromSignature
from keras_penalties.layers.code_statistics import CodeStatistics
from keras_penalties.layers.unit_norm import UnitNormDense, unit_rows
from keras_penalties.models.saelens import write
from keras_penalties.typing import Tensor


class DictionaryAutoencoder(LayerFromSignature, keras.Model):
    """An autoencoder whose input is a sum of few directions out of many: a dictionary.

    `code = activation((x·s − b)·W + c)` and `x̂ = (code·D + b)/s`. A row of D is the
    direction of one unit. Train it by plain `fit(x, x)` with the loss
    `"half_sum_squared_error"`; the loss is that of `x·s`, so that one strength serves
    all data once `adapt` has found the scale s. The logs have `code_l0` and
    `code_dead`.

    Subclasses say how the code is made (`make_code`) and what the code costs.

    Args:
        hidden_units: Units of the code, 1 or more.
        unit_norm: Whether the rows of D have length one, by `layers.UnitNormDense`.
            Default True.
        centred: Whether b is subtracted from the input. Default True.
        seed: Of the start: D is drawn at random, with rows of length 0.1 if training
            may lengthen them, and W starts as its transpose. Default None: another one
            each time.
    """

    def __init__(
        self,
        hidden_units: int,
        unit_norm: bool = True,
        centred: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = checks.integer("hidden_units", hidden_units)
        self.unit_norm = checks.instance("unit_norm", unit_norm, bool)
        self.centred = checks.instance("centred", centred, bool)
        self.seed = None if seed is None else checks.integer("seed", seed, 0)

    def build(self, input_shape: Any) -> None:
        """Create the layers for the width of the input."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            checks.refuse("input_shape", "(batch, features)", tuple(input_shape))
        width, dtype = input_shape[-1], self.dtype_policy
        seed = random.getrandbits(31) if self.seed is None else self.seed
        # Short rows where training may lengthen them: the output starts near zero.
        rows = _rows(seed, 1.0 if self.unit_norm else 0.1)
        self.encoder = self.make_encoder(_transposed(rows))
        kind = UnitNormDense if self.unit_norm else keras.layers.Dense
        self.decoder = kind(width, kernel_initializer=rows, name="decoder", dtype=dtype)
        self.statistics = CodeStatistics(name="code", dtype=dtype)
        self.input_scale = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="input_scale"
        )
        self.encoder.build((None, width))
        self.decoder.build((None, self.hidden_units))
        self.statistics.build((None, self.hidden_units))
        self.build_code((None, self.hidden_units), width)
        self.built = True

    def make_encoder(self, start: Callable[..., Tensor]) -> keras.layers.Layer:
        """The layer from the centred input to what the code is made of."""
        return keras.layers.Dense(
            self.hidden_units,
            kernel_initializer=start,
            name="encoder",
            dtype=self.dtype_policy,
        )

    def build_code(self, code_shape: Any, width: int) -> None:
        """Create and build what only one kind of code needs."""
        raise NotImplementedError

    def pre_activation(self, x: Tensor) -> Any:
        """What the encoder gives for the centred input."""
        return self.encoder(x)

    def make_code(self, pre_activation: Any, training: bool | None) -> Tensor:
        """The code, from what the encoder gives."""
        raise NotImplementedError

    def add_costs(
        self, x: Tensor, pre_activation: Any, code: Tensor, output: Tensor
    ) -> None:
        """Add to the loss what the code costs, beside its own penalty.

        Args:
            x: The scaled input.
            pre_activation: What the encoder gave.
            code: The code.
            output: The reconstruction of `x`.
        """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """The reconstruction of the input."""
        x = self._scaled(inputs)
        pre_activation = self.pre_activation(self._centred(x))
        code = self.statistics(self.make_code(pre_activation, training))
        output = self.decoder(code)
        self.add_costs(x, pre_activation, code, output)
        return output / ops.cast(self.input_scale, output.dtype)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kw: Any
    ) -> Any:
        """The loss of the scaled data, and what the code costs."""
        if y is not None:
            y, y_pred = (ops.cast(self.input_scale, z.dtype) * z for z in (y, y_pred))
        return super().compute_loss(x, y, y_pred, *args, **kw)

    def encode(self, x: Tensor) -> Tensor:
        """The code of `x`: (batch, features) to (batch, hidden_units)."""
        x = ops.convert_to_tensor(x, self.compute_dtype)
        pre_activation = self.pre_activation(self._centred(self._scaled(x)))
        return self.make_code(pre_activation, False)

    def decode(self, code: Tensor) -> Tensor:
        """Reconstruct from a code: (batch, hidden_units) to (batch, features)."""
        output = self.decoder(ops.convert_to_tensor(code, self.compute_dtype))
        return output / ops.cast(self.input_scale, output.dtype)

    def adapt(self, data: Any) -> None:
        """Let the scale and the decoder's bias suit the data, before training.

        s is such that the mean length of `x·s` is the square root of the number of
        features, and b starts at the mean of `x·s`.

        Args:
            data: Some thousand rows, (rows, features), or the stream that
                `kp.activations` gives, of which one pass is read.

        Raises:
            ValueError: if the data has no rows, or none that is not 0.
        """
        if isinstance(data, ActivationStream):
            found = data.statistics()
        else:
            rows = ops.convert_to_numpy(data)
            if rows.ndim != 2 or not rows.size or not np.all(np.isfinite(rows)):
                checks.refuse("data", "finite rows of features", data)
            found = statistics_of([rows], "data", data)
        mean, scale, _ = found
        if not self.built:
            self.build((None, len(mean)))
        self.input_scale.assign(scale)
        self.decoder.bias.assign(scale * mean)

    def to_saelens(self, folder: Any) -> None:
        """Write the model as SAELens' `SAE.load_from_disk` reads it.

        The scale of the inputs, and the lengths of the directions where they are one by
        constraint, are folded into the arrays: code and output stay the same. A code by
        threshold is "jumprelu" there, as SAELens writes its own.

        Args:
            folder: Where `cfg.json` and `sae_weights.safetensors` go.

        Raises:
            ValueError: if the model is not built.
            ImportError: if safetensors is not installed.
        """
        if not self.built:
            checks.refuse("self", "a model that is built: call it or fit it", self.name)
        scale = float(self.input_scale)
        kernel, *biases = map(ops.convert_to_numpy, self.encoder.weights)
        architecture, arrays, options = self.saelens_parts(biases)
        weights = {
            "W_enc": kernel * scale,
            "W_dec": ops.convert_to_numpy(self.dictionary) / scale,
            "b_dec": ops.convert_to_numpy(self.decoder.bias) / scale,
            **arrays,
        }
        options = {"apply_b_dec_to_input": self.centred, **options}
        write(folder, architecture, weights, options)

    def saelens_parts(
        self, biases: list[np.ndarray]
    ) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
        """SAELens' name of the architecture, its other arrays and its own options.

        Args:
            biases: The encoder's weights except the kernel.
        """
        return "standard", {"b_enc": biases[0]}, {}

    @property
    def dictionary(self) -> Tensor:
        """The direction of each unit, (hidden_units, features)."""
        kernel = ops.convert_to_tensor(self.decoder.kernel)
        return unit_rows(kernel) if self.unit_norm else kernel

    def _scaled(self, x: Tensor) -> Tensor:
        x = ops.cast(x, self.compute_dtype)
        return x * ops.cast(self.input_scale, x.dtype)

    def _centred(self, x: Tensor) -> Tensor:
        return x - ops.cast(self.decoder.bias, x.dtype) if self.centred else x


def _rows(seed: int, size: float) -> Callable[..., Tensor]:
    """An initializer of rows of one length, the same ones at each call."""
    normal = keras.initializers.RandomNormal(seed=seed)

    def initialize(shape: Any, dtype: Any = None) -> Tensor:
        return size * unit_rows(normal(shape, dtype=dtype))

    return initialize


def _transposed(rows: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def initialize(shape: Any, dtype: Any = None) -> Tensor:
        return ops.transpose(rows(shape[::-1], dtype))

    return initialize
