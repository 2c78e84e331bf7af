"""What every layer that wraps another one shares: the contract of that layer."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn

import keras

from keras_penalties import checks
from keras_penalties.hosting.term import Term
from keras_penalties.layers.base import PenaltyLayer


class WrappingLayer(PenaltyLayer):
    """A host of terms around a layer, which gives out what the layer gives out.

    Shapes, masks, dtype and recurrent states are the wrapped layer's own.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        checks.instance("layer", layer, keras.layers.Layer)
        if "go_backwards" in kwargs:  # Bidirectional makes its layers anew with it
            self._refuse_inside("Bidirectional")
        kwargs.setdefault("dtype", layer.dtype_policy)
        # The layer casts its inputs itself, or wants them as they come.
        super().__init__(autocast=False, **kwargs)
        self.layer = layer
        self.supports_masking = layer.supports_masking

    def _refuse_inside(self, outer: str) -> NoReturn:
        name = type(self).__name__
        raise ValueError(
            f"{name} can't stand inside {outer}. Put {name} outside: "
            f"{name}({outer}(...), ...)."
        )

    def build(self, input_shape: Any = None) -> None:
        """Build the layer, where one shape says all, and the terms' weights.

        A layer of several inputs, as attention is, is built by its first call.
        """
        alone = len(inspect.signature(self.layer.build).parameters) == 1
        if (alone or _takes_one_tensor(self.layer)) and not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer's own."""
        return self.layer.compute_output_shape(input_shape, *args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """What a trace of `call` finds: not every layer can say its output shape."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The layer's own."""
        return self.layer.compute_mask(inputs, mask)

    def target_path(self, term: Term) -> str:
        """The wrapped layer, and where the target lies in it."""
        return term.target.path(self.layer.name)

    @property
    def stateful(self) -> bool:
        """Whether the layer keeps a recurrent state between batches."""
        return bool(getattr(self.layer, "stateful", False))

    def reset_state(self) -> None:
        """Forget the layer's recurrent state."""
        self.layer.reset_state()

    reset_states = reset_state

    @property
    def state_size(self) -> NoReturn:
        """Refused: `RNN` would call the layer in a loop, where no loss is counted."""
        self._refuse_inside("RNN")


def _takes_one_tensor(layer: Any) -> bool:
    """Whether one tensor is all that a layer needs, as a recurrent layer is."""
    return isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
