"""Weights in their own precision: penalties of weights in mixed precision.

- Private: `AutocastScope`. In mixed precision a weight that is read in `call` comes in
  float16. A cast back to float32 corrects the value. The gradient still passes through
  float16. The public way, `add_weight(autocast=False)`, serves the weights that a layer
  makes itself, and a penalty reads the weights of other layers.
- Needless when `test_weights_come_autocast_in_call` of `tests/test_needless.py` fails.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import keras

from keras_penalties.compat.private import Missing, private

_AutocastScope = private(
    "Mixed precision", "keras.src.backend.common.variables:AutocastScope"
)


def full_precision() -> AbstractContextManager[None]:
    """Within it a weight read in `call` has its own dtype, also in its gradient."""
    if isinstance(_AutocastScope, Missing) and _probe.value.dtype == _probe_dtype:
        return contextlib.nullcontext()
    scope: AbstractContextManager[None] = _AutocastScope(None)
    return scope


if isinstance(_AutocastScope, Missing):
    # Shows whether Keras casts weights here: where Keras does not, nothing is missing.
    _probe = keras.Variable(0.0, dtype="float32", trainable=False)
    _probe_dtype = _probe.value.dtype
