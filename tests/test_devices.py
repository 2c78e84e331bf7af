"""On many devices a penalised model trains, and logs, as it does on one."""

from __future__ import annotations

import keras
import pytest
from virtual_devices import EIGHT_CPUS, mirrored, sharded

BACKEND = keras.backend.backend()

TRAINING = """
import keras, numpy as np, keras_penalties as kp
from keras import layers, ops
P = kp.penalties

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(64, 8)), rng.normal(size=(64, 4))
DATA = [X, Y, rng.random((64, 1)), rng.random(64)]

def scaled(y_pred, y_true, scale):
    return ops.sum(ops.square(y_pred - y_true), -1) * scale[:, 0]

def model(shares):
    # A statistic for each share of a batch of 16: those that as many replicas see.
    x, y, scale, weight = (keras.Input(d.shape[1:]) for d in DATA)
    ramp = kp.strengths.LinearRamp(0.0, 0.1, steps=10)
    terms = {"kernel": P.Grouped(P.L1(ramp)) + P.L2(0.1),
             "bias": P.L2(kp.Target(0.1, rate=0.1))}
    code = layers.Dense(16, "sigmoid", name="code")
    h = kp.layers.Penalized(code, terms, outputs="l2(0.1)")(x)
    parts = ops.split(h, shares) if shares > 1 else [h]
    kl = P.KLSparsity(0.3 / shares, rate=0.2)
    parts = [kp.layers.ActivityPenalty(kl, name=f"kl{i}")(p)
             for i, p in enumerate(parts)]
    h = layers.Concatenate(axis=0)(parts) if shares > 1 else parts[0]
    h = kp.layers.ActivityPenalty("l1(0.1) + log_sum(0.1)", name="hidden")(h)
    h = layers.Dense(8, "tanh", kernel_regularizer=P.Grouped(P.L1(0.03)),
                     activity_regularizer=P.L2(0.05), name="slots")(h)
    h = kp.layers.InputGradient(layers.Dense(4, "tanh"), "l2(0.2)", name="slope")(h)
    h = kp.layers.AddLoss(scaled, 0.5)(h, y_true=y, scale=scale, sample_weight=weight)
    for loss, name, strength in (
        (keras.losses.Huber(), "mean", 1.0),
        (keras.losses.LogCosh(reduction="sum"), "sum", 0.02),
    ):
        add = kp.layers.AddLoss(loss, strength, name=name)
        h = add(h, y_true=y, sample_weight=weight)
    return keras.Model([x, y, scale, weight], h)

def trained(shares=1):
    keras.utils.set_random_seed(0)
    each = model(shares)
    each.compile(keras.optimizers.SGD(0.05), "mse")
    options = {"batch_size": 16, "verbose": 0}
    logs = each.fit(DATA, Y, epochs=2, shuffle=False, **options).history
    last = each.evaluate(DATA, Y, return_dict=True, **options)
    logs = {name: [*logs[name], last[name]] for name in logs}
    kl = [np.array(logs.pop(f"kl{i}_kl_sparsity")) for i in range(shares)]
    weights = [*each.trainable_weights, each.get_layer("penalized_code").strengths]
    if keras.backend.backend() == "jax":
        whole = [w.value.sharding.is_fully_replicated for w in each.trainable_weights]
        print("sharded", whole.count(False))
    logs = {**logs, "kl": sum(kl)}
    assert len(logs) == 14, sorted(logs)
    return [ops.convert_to_numpy(w) for w in weights], logs
"""

WHOLE_MODEL = """
import keras, numpy as np, keras_penalties as kp

def trained():
    keras.utils.set_random_seed(0)
    shape = {"input_shape": (32, 32, 3), "classes": 10}
    model = keras.applications.MobileNetV2(weights=None, alpha=0.35, **shape)
    for layer in model.layers:  # else each replica has statistics of its own
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    model = kp.penalize(model, {"(.*_)?kernel": "l1(1e-4) + l2(1e-3)"})
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.SGD(0.05), loss)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 32, 32, 3)), rng.integers(10, size=32)
    logs = model.fit(x, y, 16, 2, shuffle=False, verbose=0).history
    assert set(logs) == {"loss", "kernel_l1", "kernel_l2"}
    kernels = [w for w in model.trainable_weights if w.name.endswith("kernel")]
    assert len(kernels) > 50
    if keras.backend.backend() == "jax":
        cut = [not w.value.sharding.is_fully_replicated for w in kernels]
        print("cut", sum(cut))
    weights = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    return weights, logs
"""

COMPARE = """
def compare(one, many):
    for a, b in zip(one[0], many[0], strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
    assert set(one[1]) == set(many[1])
    for name, a in one[1].items():
        np.testing.assert_allclose(many[1][name], a, rtol=1e-5, err_msg=name)
    print("alike")
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_every_kernel_of_a_model_under_mirrored_strategy(fresh_process):
    assert fresh_process(mirrored(WHOLE_MODEL + COMPARE)).count("alike") == 1


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="Keras' distribution is for JAX")
def test_every_kernel_of_a_model_under_data_and_model_parallel(fresh_process):
    layouts = {".*(expand|project)/kernel": (None, None, None, "model")}
    program = sharded(WHOLE_MODEL + COMPARE, layouts)
    printed = fresh_process(program, XLA_FLAGS=EIGHT_CPUS)
    assert printed.count("alike") == 2
    assert int(printed.split("cut")[-1].split()[0]) > 30


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_mirrored_strategy(fresh_process):
    """Each replica has its own statistic, of its share of the batch."""
    program = mirrored(TRAINING + COMPARE, one="trained(shares=2)")
    assert fresh_process(program).count("alike") == 1


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="Keras' distribution is for JAX")
def test_data_and_model_parallel(fresh_process):
    """There is one program: a statistic is of the whole batch."""
    layouts = {
        ".*code/kernel": (None, "model"),  # groups whole on a device
        ".*slots/kernel": ("model", None),  # and across devices
    }
    program = sharded(TRAINING + COMPARE, layouts)
    printed = fresh_process(program, XLA_FLAGS=EIGHT_CPUS)
    assert printed.count("alike") == 2
    assert "sharded 2" in printed
