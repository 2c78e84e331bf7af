"""Several devices on one processor, for fresh processes."""

import os
from collections.abc import Mapping

TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
"""
EIGHT_CPUS = f"{os.getenv('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
"""As `XLA_FLAGS`, for JAX, beside those that are there."""
NET = """
import keras, numpy as np, keras_penalties as kp
P = kp.penalties

def start():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = (x @ np.linspace(-1, 1, 32).reshape(8, 4)).astype("float32")
    return x, y, keras.Sequential([
        keras.Input((8,)),
        keras.layers.Dense(16, activation="tanh", name="first"),
        keras.layers.Dense(4, name="second"),
    ])
"""
"""A program's `start()`: data, and a net whose kernels devices can share."""
GRID = """
devices = keras.distribution.list_devices()
mesh = keras.distribution.DeviceMesh((2, 4), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)"""


def mirrored(program: str, one: str = "trained()") -> str:
    """`compare(one, trained())`, the latter under a `MirroredStrategy` of two."""
    return f"""{TWO_CPUS}{program}
one = {one}
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    compare(one, trained())
"""


def grid(layouts: Mapping[str, tuple[str | None, ...]]) -> str:
    """Names for a program: the `devices`, and a `layout` of weights on 2 by 4."""
    lines = [f"layout[{path!r}] = {axes!r}" for path, axes in layouts.items()]
    return "\n".join([GRID, *lines, ""])


def sharded(program: str, layouts: Mapping[str, tuple[str | None, ...]]) -> str:
    """`compare(one, trained())`, the latter under both distributions of Keras'."""
    return f"""{program}{grid(layouts)}
one = trained()
for distribution in (
    keras.distribution.DataParallel(devices=devices),
    keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
):
    keras.distribution.set_distribution(distribution)
    compare(one, trained())
"""
