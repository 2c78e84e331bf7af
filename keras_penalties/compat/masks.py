"""Masks that travel with tensors: `AddLoss`, and the layers on derivatives.

- Private: `get_keras_mask` and `set_keras_mask`. A layer gets the mask of its own first
  argument by a public way (`call(self, inputs, mask)`). There is none for the other
  tensors, nor for a tensor that the layer itself makes and hands to a layer inside it.
- Needless when `test_masks_are_private` of `tests/test_needless.py` fails.
"""

from __future__ import annotations

from typing import Any

from keras_penalties.compat.private import private

_FEATURE = "Masks of tensors in `AddLoss` and in layers on derivatives"
_get_keras_mask = private(_FEATURE, "keras.src.backend.common.masking:get_keras_mask")
_set_keras_mask = private(_FEATURE, "keras.src.backend.common.masking:set_keras_mask")


def keras_mask(x: Any) -> Any:
    """The mask that travels with a tensor, or None."""
    return _get_keras_mask(x)


def carry_mask(x: Any, mask: Any) -> Any:
    """`x`, with that mask to travel with it, if there is one."""
    if mask is not None:
        _set_keras_mask(x, mask)
    return x
