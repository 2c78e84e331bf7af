"""Dictionaries whose code a penalty keeps sparse: ReLU, gated, JumpReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_penalties import checks, penalties
from keras_penalties.layers.activity import ActivityPenalty
from keras_penalties.layers.endpoint import AddLoss
from keras_penalties.layers.gated import GatedDense
from keras_penalties.layers.jump_relu import JumpReLU
from keras_penalties.models.dictionary import DictionaryAutoencoder
from keras_penalties.numerics import widened
from keras_penalties.registry import register
from keras_penalties.strengths import StrengthLike, as_strength
from keras_penalties.sums import length
from keras_penalties.typing import Tensor


@register
class ReLUAutoencoder(DictionaryAutoencoder):
    """A dictionary with a ReLU code and a penalty on it, an L1 as a rule.

    `½‖x − x̂‖² + penalty(code_i·‖D_i‖)`: each unit's entry is weighed by the length of
    the direction that the unit writes along, so that small codes and long directions
    gain nothing.

    Args:
        hidden_units: Units of the code, 1 or more.
        penalty: On the weighed code, a mean over samples: a penalty, its name, or
            config. A warm-up is a strength: `L1(LinearRamp(0.0, 5.0, 1000))`. Default
            `"l1(1.0)"`.
        unit_norm: Whether the rows of D have length one. Default False.
        **kwargs: `centred` and `seed`, as `DictionaryAutoencoder` has them, and what
            every Keras model takes.

    Shapes: input and output (batch, features).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.ReLUAutoencoder(16, "l1(0.5)")
        >>> model.compile("adam", "half_sum_squared_error")
        >>> sorted(model.fit(x, x, verbose=0).history)
        ['code_dead', 'code_l0', 'loss', 'penalty_l1']

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Bricken et al., "Towards Monosemanticity: Decomposing Language Models With
    Dictionary Learning", 2023; Conerly et al., "Update on How We Train SAEs", 2024, for
    the lengths.
    """

    def __init__(
        self,
        hidden_units: int,
        penalty: Any = "l1(1.0)",
        unit_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(hidden_units, unit_norm, **kwargs)
        self.penalty = penalties.get(penalty, "penalty")

    def build_code(self, code_shape: Any, width: int) -> None:
        """Create the penalty's layer."""
        self.cost = ActivityPenalty(
            self.penalty, name="penalty", dtype=self.dtype_policy
        )
        self.cost.build(code_shape)

    def make_code(self, pre_activation: Tensor, training: bool | None) -> Tensor:
        """What is positive."""
        return ops.relu(pre_activation)

    def add_costs(
        self, x: Tensor, pre_activation: Tensor, code: Tensor, output: Tensor
    ) -> None:
        """Add the penalty on the weighed code."""
        self.cost(_weighed(code, self))


@register
class GatedAutoencoder(ReLUAutoencoder):
    """A dictionary whose encoder asks apart whether a unit is on, and how strongly.

    `½‖x − x̂‖² + penalty(gate_i·‖D_i‖) + ½‖x − (gate·D̄ + b̄)‖²`, where D̄, b̄ have no
    gradient. The penalty reaches the gate only, so it does not shrink the code. See
    `layers.GatedDense`. The logs have the third term as `gate_alone`.

    Args:
        hidden_units: Units of the code, 1 or more.
        penalty: On the weighed gate, a mean over samples: a penalty, its name, or
            config. Default `"l1(1.0)"`.
        unit_norm: Whether the rows of D have length one. Default False.
        **kwargs: `centred` and `seed`, as `DictionaryAutoencoder` has them, and what
            every Keras model takes.

    Shapes: input and output (batch, features).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.GatedAutoencoder(16, "l1(0.5)")
        >>> model.compile("adam", "half_sum_squared_error")
        >>> sorted(model.fit(x, x, verbose=0).history)
        ['code_dead', 'code_l0', 'gate_alone', 'loss', 'penalty_l1']

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Rajamanoharan et al., "Improving Dictionary Learning with Gated Sparse
    Autoencoders", 2024.
    """

    def make_encoder(self, start: Callable[..., Tensor]) -> keras.layers.Layer:
        """A gated one."""
        return GatedDense(
            self.hidden_units, start, name="encoder", dtype=self.dtype_policy
        )

    def build_code(self, code_shape: Any, width: int) -> None:
        """Create the layers of the two losses."""
        super().build_code(code_shape, width)
        self.gate_alone = AddLoss("half_sum_squared_error", name="gate_alone")
        self.gate_alone.build((None, width))

    def pre_activation(self, x: Tensor) -> Any:
        """The code, and what the gate alone would give."""
        return self.encoder(x, return_gate=True)

    def make_code(self, pre_activation: Any, training: bool | None) -> Tensor:
        """The code that the encoder gives."""
        return pre_activation[0]

    def saelens_parts(
        self, biases: list[np.ndarray]
    ) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
        """A code by gates."""
        names = ("b_gate", "b_mag", "r_mag")
        return "gated", dict(zip(names, biases, strict=True)), {}

    def add_costs(
        self, x: Tensor, pre_activation: Any, code: Tensor, output: Tensor
    ) -> None:
        """Add the penalty on the weighed gate, and what the gate alone misses."""
        _, gate = pre_activation
        self.cost(_weighed(gate, self))
        still = ops.stop_gradient(ops.cast(self.dictionary, gate.dtype))
        bias = ops.stop_gradient(ops.cast(self.decoder.bias, gate.dtype))
        self.gate_alone(ops.matmul(gate, still) + bias, y_true=ops.stop_gradient(x))


@register
class JumpReLUAutoencoder(DictionaryAutoencoder):
    """A dictionary whose units each have a threshold, trained by the number of units.

    `½‖x − x̂‖² + sparsity·L0(code)`, see `layers.JumpReLU`. The logs have the second
    term as `activation_l0`, or `activation_tanh`.

    Args:
        hidden_units: Units of the code, 1 or more.
        sparsity: The strength of L0: 0 or more, a schedule, or a `Target` for L0
            itself, such as `kp.Target(8.0)` for eight units a sample. Default 1.0.
        initial_threshold: Where the thresholds start, 0 or more. Default 0.01.
        bandwidth: Of the thresholds' straight-through gradient, above 0. Default 0.05.
        smooth: `Σ tanh(smooth·code)` in place of L0, above 0. Default None: L0.
        unit_norm: Whether the rows of D have length one. Default False.
        **kwargs: `centred` and `seed`, as `DictionaryAutoencoder` has them, and what
            every Keras model takes.

    Shapes: input and output (batch, features).

    Example:
        >>> import numpy as np, keras_penalties as kp
        >>> x = np.random.default_rng(0).random((32, 8)).astype("float32")
        >>> model = kp.models.JumpReLUAutoencoder(16, sparsity=0.1)
        >>> model.compile("adam", "half_sum_squared_error")
        >>> sorted(model.fit(x, x, verbose=0).history)
        ['activation_l0', 'code_dead', 'code_l0', 'loss']

    Raises:
        ValueError: if an argument is out of range, or the input is not of rank 2.

    Source: Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with
    JumpReLU Sparse Autoencoders", 2024.
    """

    def __init__(
        self,
        hidden_units: int,
        sparsity: StrengthLike = 1.0,
        initial_threshold: float = 0.01,
        bandwidth: float = 0.05,
        smooth: float | None = None,
        unit_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(hidden_units, unit_norm, **kwargs)
        self.sparsity = as_strength(sparsity, "loss")
        self.initial_threshold = checks.non_negative(
            "initial_threshold", initial_threshold
        )
        self.bandwidth = checks.positive("bandwidth", bandwidth)
        self.smooth = None if smooth is None else checks.positive("smooth", smooth)

    def build_code(self, code_shape: Any, width: int) -> None:
        """Create the activation with its thresholds."""
        self.activation = JumpReLU(
            self.sparsity,
            self.initial_threshold,
            self.bandwidth,
            self.smooth,
            name="activation",
            dtype=self.dtype_policy,
        )
        self.activation.build(code_shape)

    def make_code(self, pre_activation: Tensor, training: bool | None) -> Tensor:
        """What is above the thresholds."""
        return self.activation(pre_activation, training=training)

    def saelens_parts(
        self, biases: list[np.ndarray]
    ) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
        """A code by thresholds."""
        threshold = ops.convert_to_numpy(self.activation.threshold)
        return "jumprelu", {"b_enc": biases[0], "threshold": threshold}, {}


def _weighed(code: Tensor, model: DictionaryAutoencoder) -> Tensor:
    """Each entry times the length of the direction that the unit writes along."""
    if model.unit_norm:
        return code
    sizes = length(widened(model.decoder.kernel), (1,))
    return code * ops.cast(sizes[:, 0], code.dtype)
