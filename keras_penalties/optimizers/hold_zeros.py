"""Zeros that stay: another optimizer on the entries that are not zero."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_penalties import checks, compat
from keras_penalties.hosting.addresses import check_pattern, fits
from keras_penalties.optimizers.wrapper import Wrapper, assign_with_zeros
from keras_penalties.registry import register


@register
class HoldZeros(Wrapper):
    """Another optimizer that moves no weight away from zero.

    An entry that is zero before a step is zero after it, exactly. So a model whose
    zeros `Proximal` or any other pruning made is tuned on the entries that are left,
    without the penalty, which has also shrunk these.

    Nothing is kept beside the weights: their zeros say which entries are held, also
    after the model was saved and loaded, or compiled anew. The gradients of these
    entries count as zero, so that they have no part in clipping by a norm, nor in the
    inner optimizer's moments. The moving averages of the weights hold the same zeros.

    Args:
        inner: The optimizer that takes the steps: an object, a string or a config. It
            may be a `Proximal`: then a zero that the penalty makes is final. A
            `LossScaleOptimizer` goes outside: `LossScaleOptimizer(HoldZeros(...))`.
        weights: Which weights: a regular expression for the whole `variable.path` or
            for its end, from a `/` on, as for `Proximal`. Default
            `"[^/]*kernel|embeddings"`: all kernels and embeddings, and no biases, which
            start at zero.
        name: For logs. Default `"hold_zeros"`.

    Raises:
        ValueError: if `inner` scales the loss or is made of several optimizers, or
            `weights` fits no weight that is trained.

    Example:
        >>> import keras, numpy as np, keras_penalties as kp
        >>> model = keras.Sequential([keras.layers.Dense(1, name="line")])
        >>> model.compile(kp.optimizers.HoldZeros(keras.optimizers.SGD(0.1)), "mse")
        >>> model.build((None, 2))
        >>> _ = model.layers[0].kernel.assign([[2.5], [0.0]])
        >>> x = np.array([[1.0, 0.1], [-1.0, 0.1]])
        >>> _ = model.fit(x, 3.0 * x[:, :1], epochs=50, verbose=0)
        >>> [round(float(w[0]), 3) for w in model.get_weights()[0]]
        [3.0, 0.0]

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural
    Networks", 2015.
    """

    def __init__(
        self,
        inner: Any,
        weights: str = "[^/]*kernel|embeddings",
        name: str | None = None,
    ) -> None:
        super().__init__(inner, name)
        check_pattern("weights", weights)
        self.weights = weights
        self._innermost = self.inner
        while isinstance(self._innermost, Wrapper):
            self._innermost = self._innermost.inner
        if compat.flat_optimizers(self._innermost) != [self._innermost]:
            expected = "one optimizer that scales no loss. Put LossScaleOptimizer "
            expected += "outside: LossScaleOptimizer(HoldZeros(...)), and a HoldZeros "
            checks.refuse("inner", f"{expected}around each of several", inner)
        compat.around_update(self._innermost, self._around_update)

    def build(self, variables: Sequence[Any]) -> None:
        """Find the weights; create the inner optimizer's state."""
        if self.built:
            return
        paths = [v.path for v in variables]
        held = [i for i, path in enumerate(paths) if fits(self.weights, path)]
        if not held:
            expected = f"a pattern that fits one of the trained weights {paths}"
            checks.refuse("weights", expected, self.weights)
        self._held = frozenset(held)
        super().build(variables)
        for i in held:
            _say_dead(variables[i])

    def _holds(self, variable: Any) -> bool:
        return compat.index_of(self._innermost, variable) in self._held

    def _passed_on(self, gradients: Any, variables: Sequence[Any]) -> list[Any]:
        """The gradients of what is not zero."""
        pairs = zip(gradients, variables, strict=True)
        return [self._live(g, v) for g, v in pairs]

    def _live(self, gradient: Any, variable: Any) -> Any:
        if gradient is None or not self._holds(variable):
            return gradient
        # On TensorFlow an embedding has a sparse gradient.
        gradient = ops.convert_to_tensor(gradient)
        zero = ops.convert_to_tensor(variable) == 0
        return ops.where(zero, ops.zeros_like(gradient), gradient)

    def _around_update(
        self,
        update: Callable[[], None],
        gradients: Sequence[Any],
        variables: Sequence[Any],
        rate: Any,
    ) -> None:
        """The inner optimizer's own update, then zeros where there were zeros.

        A gradient of zero does not suffice: an optimizer that was used before still has
        momentum, and the step of some, such as Muon, mixes the entries.
        """
        held = [v for v in variables if self._holds(v)]
        were = [ops.convert_to_tensor(v) == 0 for v in held]
        update()
        for variable, zero in zip(held, were, strict=True):
            new = ops.convert_to_tensor(variable)
            new = ops.where(zero, ops.zeros_like(new), new)
            assign_with_zeros(self._innermost, variable, new)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "weights": self.weights}


def _say_dead(variable: Any) -> None:
    """Warn of a weight that is all zeros."""
    if not _any_nonzero(variable):
        warnings.warn(
            f"'{variable.path}' is all zeros, and `HoldZeros` keeps it so: no step of "
            "training moves it. Give `weights` a pattern without it if it is to move.",
            stacklevel=2,
        )


def _any_nonzero(variable: Any) -> bool:
    scope: Any = contextlib.nullcontext()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        scope = tf.init_scope()  # Keras may build an optimizer within a graph
    with scope:
        return bool(ops.any(ops.convert_to_tensor(variable) != 0))
