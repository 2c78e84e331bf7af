"""Losses under `tf.distribute`. This module uses public functions of TensorFlow only.

On TensorFlow a `keras.losses.Loss` divides its mean by the number of replicas, and
Keras divides each loss that a layer adds by that number once more. The module is
needless when `test_tf_distribute_divides_a_loss_twice` of `tests/test_needless.py`
fails.
"""

from __future__ import annotations

from typing import Any

import keras


def replicated() -> bool:
    """Whether a `tf.distribute` strategy is at work."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def undistributed(loss: Any) -> Any:
    """A reduced loss, multiplied by the number of replicas, to be added.

    Under `tf.distribute` Keras divides each added loss by that number. A mean is
    divided already when the loss reduces it, and a sum is not to be divided at all.
    """
    if not replicated():
        return loss
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss * tf.cast(replicas, loss.dtype)


def replica_share(gradient: Any) -> Any:
    """A replica's share of a gradient that is the same on each replica.

    Keras sums the gradients of all replicas after an optimizer's `apply` was called.
    """
    if not replicated():
        return gradient
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return gradient / tf.cast(replicas, gradient.dtype)
