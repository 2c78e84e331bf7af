"""`penalize` on large models, on many devices and in exports."""

import os
import sys

import existing_models
import keras
import numpy as np
import pytest
from conftest import BACKEND
from penalized_proof import check, check_reload, loss_of
from virtual_devices import EIGHT_CPUS, mirrored, sharded

import keras_penalties as kp

pytestmark = pytest.mark.slow


FIRST, *OTHERS = existing_models.SLOW


@pytest.mark.parametrize(
    "build",
    [FIRST, *(pytest.param(b, marks=pytest.mark.one_backend) for b in OTHERS)],
    ids=lambda f: f.__name__,
)
def test_applications(build, tmp_path, fresh_process):
    case = build()
    model = check(case, 1e-4)
    logs = model.evaluate(case.x, case.y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "kernel_l2"}
    check_reload({build.__name__: (model, case.x, case.y)}, tmp_path, fresh_process)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    kp.strip(model).load_weights(path)
    case.model.load_weights(path)
    case.model.save_weights(path)
    model.load_weights(path)


def test_a_backbone_of_keras_hub(tmp_path):
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.BertBackbone(
        vocabulary_size=11,
        num_layers=2,
        num_heads=2,
        hidden_dim=4,
        intermediate_dim=8,
        max_sequence_length=6,
    )
    with pytest.raises(ValueError, match=r"Penalizing.*keras.Model\(model.inputs"):
        kp.penalize(backbone, {".*kernel": "l2(0.1)"})
    plain = keras.Model(backbone.input, backbone.output)
    x = {name: np.ones((2, 6), "int32") for name in backbone.input}
    y = {
        name: np.zeros((2, *shape[1:]), "float32")
        for name, shape in (
            ("sequence_output", (2, 6, 4)),
            ("pooled_output", (2, 4)),
        )
    }
    kernels = [v for v in backbone.trainable_variables if v.path.endswith("kernel")]
    squares = [(v, 0.1) for v in kernels]
    assert len(squares) == 13  # 2 of attention and feed-forward: 6 each; the pooler
    case = existing_models.Case(plain, x, y, {".*kernel": "l2(0.1)"}, squares)
    model = check(case, 1e-4)
    model.save(tmp_path / "bert.keras")
    again = keras.saving.load_model(tmp_path / "bert.keras")
    np.testing.assert_allclose(loss_of(again, x, y), loss_of(model, x, y), rtol=1e-5)


TRAINING = """
import keras, numpy as np, keras_penalties as kp
from keras_penalties.penalties import L1, L2

def trained():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = (x @ np.linspace(-1, 1, 32).reshape(8, 4)).astype("float32")
    plain = keras.Sequential([
        keras.Input((8,)),
        keras.layers.Dense(16, activation="tanh", name="first"),
        keras.layers.Dense(4, name="second"),
    ])
    plain.compile(keras.optimizers.SGD(0.02), "mse")
    model = kp.penalize(plain, {
        "kernel": L2(keras.optimizers.schedules.PolynomialDecay(0.0, 16, 0.3)),
        "second/kernel": L1(0.1),
        "first": {"outputs": "l1(0.05)"},
    })
    logs = model.fit(x, y, epochs=4, batch_size=16, shuffle=False, verbose=0).history
    return [keras.ops.convert_to_numpy(w) for w in model.weights], logs

def compare(one, many):
    for a, b in zip(one[0][:4], many[0][:4], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert set(one[1]) == set(many[1]) and "kernel_l2" in one[1]
    for name, values in one[1].items():
        np.testing.assert_allclose(values, many[1][name], rtol=1e-4, err_msg=name)
    print("SAME")
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow")
def test_mirrored_strategy(fresh_process):
    assert "SAME" in fresh_process(mirrored(TRAINING))


@pytest.mark.skipif(BACKEND != "jax", reason="a distribution of JAX")
def test_model_parallel(fresh_process):
    layouts = {"first/kernel": (None, "model"), "second/kernel": ("model", None)}
    source = sharded(TRAINING, layouts)
    assert fresh_process(source, XLA_FLAGS=EIGHT_CPUS).count("SAME") == 2


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel of TensorFlow")
def test_an_exported_stripped_model_has_no_trace(tmp_path, fresh_process):
    case = existing_models.sequential()
    model = kp.penalize(case.model, case.rules)
    plain = kp.strip(model)
    plain.export(tmp_path / "saved", verbose=False)
    plain.save(tmp_path / "plain.keras")
    source = """
import numpy as np, keras, tensorflow as tf
model = tf.saved_model.load("saved")
print(model.serve(np.ones((2, 3), "float32")).numpy().tolist())
text = (open("saved/saved_model.pb", "rb").read())
assert b"model_penalty" not in text and b"Penalty" not in text
keras.saving.load_model("plain.keras")  # this package is not imported
"""
    path = os.pathsep.join(p for p in sys.path if not p.endswith("tests"))
    printed = fresh_process(source, PYTHONPATH=path)
    expected = keras.ops.convert_to_numpy(case.model(np.ones((2, 3), "float32")))
    np.testing.assert_allclose(eval(printed), expected, rtol=1e-5)
