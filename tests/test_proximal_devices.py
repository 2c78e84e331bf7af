"""`Proximal` on many devices takes the steps that it takes on one."""

from __future__ import annotations

import keras
import pytest
from virtual_devices import EIGHT_CPUS, NET, TWO_CPUS, grid

BACKEND = keras.backend.backend()

TRAINING = (
    NET
    + """
def trained(inner):
    x, y, model = start()
    penalties = {
        "first/kernel": P.Grouped(P.L1(0.05), axis=-1),
        "second/kernel": P.L1(kp.Target(0.5, of="density", rate=0.01)),
        "second/bias": "l1(0.3)",
    }
    model.compile(kp.optimizers.Proximal(keras.optimizers.get(inner), penalties), "mse")
    model.fit(x, y, epochs=4, batch_size=16, shuffle=False, verbose=0)
    return [keras.ops.convert_to_numpy(w) for w in model.weights]

def compare(one, many):
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_array_equal(a == 0, b == 0)
    print("zeros", sum((w == 0).sum() for w in many))

INNERS = [
    {"class_name": "Adam", "config": {"learning_rate": 0.02, "amsgrad": True}},
    {"class_name": "SGD", "config": {"learning_rate": 0.02, "momentum": 0.9}},
    {"class_name": "Adadelta", "config": {"learning_rate": 30.0}},
]
ACCUMULATING = {"class_name": "SGD", "config": {
    "learning_rate": 0.02, "gradient_accumulation_steps": 2}}
"""
)

MIRRORED = (
    TWO_CPUS
    + TRAINING
    + """
for inner in INNERS:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = trained(dict(inner))
    with strategy.scope():
        many = trained(dict(inner))
    compare(one, many)
"""
)

SHARDED = (
    TRAINING
    + grid({"first/kernel": (None, "model"), "second/kernel": ("model", None)})
    + """
assert len(devices) == 8
# Under MirroredStrategy no Keras optimizer can accumulate.
for inner in [*INNERS, ACCUMULATING]:
    keras.distribution.set_distribution(None)
    one = trained(dict(inner))
    for distribution in (
        keras.distribution.DataParallel(devices=devices),
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
    ):
        keras.distribution.set_distribution(distribution)
        compare(one, trained(dict(inner)))
"""
)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_mirrored_strategy(fresh_process):
    printed = fresh_process(MIRRORED)
    assert "zeros 0" not in printed
    assert printed.count("zeros") == 3


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="Keras' distribution is for JAX")
def test_data_and_model_parallel(fresh_process):
    printed = fresh_process(SHARDED, XLA_FLAGS=EIGHT_CPUS)
    assert "zeros 0" not in printed
    assert printed.count("zeros") == 8
