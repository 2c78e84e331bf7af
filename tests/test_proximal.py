"""`Proximal` as a Keras optimizer: what it does, and what it refuses."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp
from keras_penalties.optimizers import Proximal

BACKEND = keras.backend.backend()
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
START = np.array([[3.0], [-0.5], [0.04]], "float32")
X = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2]]
Y = (X @ np.array([[1.0], [0.0], [0.2]])).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


def linear(optimizer, loss="mse", **dense):
    """One kernel of three entries, from START."""
    layer = keras.layers.Dense(1, use_bias=False, name="line", **dense)
    model = keras.Sequential([keras.Input((3,)), layer], name="model")
    layer.kernel.assign(START)
    model.compile(optimizer, loss)
    return model


def kernel(model):
    return numpy(model.get_layer("line").kernel)


def stepped(optimizer, gradients, start=START, **variable):
    """A kernel after one `apply` for each gradient."""
    weight = keras.Variable(start, name="kernel", **variable)
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, weight.dtype)])
    return numpy(weight)


def soft(x, t):
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


# What it does.


def test_one_step_is_the_inner_step_and_the_map():
    found = stepped(Proximal(SGD(0.1), {"kernel": "l1(0.5)"}), [np.ones((3, 1))])
    np.testing.assert_allclose(found, soft(START - 0.1, 0.05), rtol=1e-6)
    assert found[2] == soft(START - 0.1, 0.05)[2] != 0


def test_fit_gives_exact_zeros():
    model = linear(Proximal(SGD(1.5), {"kernel": "l1(0.1)"}), "half_sum_squared_error")
    model.fit(X, Y, epochs=25, verbose=0)
    # Each input is seen twice in six: ½(w - y)²/3 + 0.1|w|.
    np.testing.assert_allclose(kernel(model)[:, 0], [0.7, 0.0, 0.0], atol=1e-5)
    assert (kernel(model)[1:] == 0).all()


@pytest.mark.parametrize("how", ["eager", "jit", "several steps", "by hand"])
def test_every_way_of_running_takes_the_same_steps(how):
    if how == "several steps" and BACKEND == "torch":
        pytest.skip("Keras has `steps_per_execution` on TensorFlow and JAX only")

    def model():
        penalties = {"kernel": kp.penalties.ElasticNet(0.2)}
        return linear(Proximal(Adam(0.05), penalties))

    plain, other = model(), model()
    plain.fit(X, Y, epochs=6, batch_size=3, shuffle=False, verbose=0)
    options = {
        "eager": {"run_eagerly": True},
        "jit": {"jit_compile": BACKEND != "torch"},
        "several steps": {"steps_per_execution": 2},
        "by hand": {},
    }[how]
    other.compile(other.optimizer, "mse", **options)
    if how == "by hand":
        for _ in range(6):
            for batch in (slice(0, 3), slice(3, 6)):
                other.train_on_batch(X[batch], Y[batch])
    else:
        other.fit(X, Y, epochs=6, batch_size=3, shuffle=False, verbose=0)
    np.testing.assert_allclose(kernel(other), kernel(plain), rtol=1e-5)
    assert int(other.optimizer.iterations) == 12


@pytest.mark.parametrize(
    "inner", ["sgd", SGD(0.01), {"class_name": "SGD", "config": {}}]
)
@pytest.mark.parametrize(
    "penalty",
    [
        "l1(0.3)",
        kp.penalties.L1(0.3),
        keras.saving.serialize_keras_object(kp.get("l1(0.3)")),
    ],
)
def test_strings_and_configs(inner, penalty):
    if isinstance(inner, SGD):
        inner = SGD.from_config(inner.get_config())
    found = stepped(Proximal(inner, {"kernel": penalty}), [np.zeros((3, 1))])
    np.testing.assert_allclose(found, soft(START, 0.003), rtol=1e-6)


# Patterns.


def paths(optimizer, names):
    """Which of some weights are penalised."""
    variables = []
    for name in names:
        *scopes, last = name.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            variables.append(keras.Variable(np.ones((2, 2), "float32"), name=last))
    assert [v.path for v in variables] == names
    optimizer.build(variables)
    return [term.target.path("") for term in optimizer.terms]


NAMES = ["encoder/kernel", "encoder/bias", "my_encoder/kernel", "model/decoder/kernel"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("encoder/kernel", ["encoder/kernel"]),
        ("decoder/kernel", ["model/decoder/kernel"]),
        ("model/decoder/kernel", ["model/decoder/kernel"]),
        ("kernel", ["encoder/kernel", "my_encoder/kernel", "model/decoder/kernel"]),
        ("encoder/.*", ["encoder/kernel", "encoder/bias"]),
        ("encoder/.*kernel", ["encoder/kernel"]),
        (".*encoder/kernel", ["encoder/kernel", "my_encoder/kernel"]),
        ("(en|de)coder/kernel", ["encoder/kernel", "model/decoder/kernel"]),
        ("encoder/bias|decoder/kernel", ["encoder/bias", "model/decoder/kernel"]),
    ],
)
def test_a_pattern_is_a_path_or_its_end(pattern, expected):
    assert paths(Proximal("sgd", {pattern: kp.penalties.L1(0.1)}), NAMES) == expected


@pytest.mark.parametrize(
    "pattern", ["encoder", "kern", "coder/kernel", "encoder/kernel/"]
)
def test_a_pattern_that_fits_nothing_is_refused(pattern):
    optimizer = Proximal("sgd", {pattern: kp.penalties.L1(0.1)})
    with pytest.raises(ValueError, match=r"`penalties`.*trained weights.*Received"):
        paths(optimizer, NAMES)


def test_two_patterns_for_one_weight_are_refused():
    both = {"kernel": kp.penalties.L1(0.1), "encoder/.*": kp.penalties.L2(0.1)}
    with pytest.raises(
        ValueError, match=r"one pattern only that fits 'encoder/kernel'"
    ):
        paths(Proximal("sgd", both), NAMES)


def test_a_frozen_weight_is_not_trained_and_so_not_found():
    model = linear(Proximal(SGD(), {"line/kernel": kp.penalties.L1(0.1)}))
    extra = keras.layers.Dense(1, name="other")
    model.add(extra)
    model.get_layer("line").trainable = False
    model.compile(model.optimizer, "mse")
    with pytest.raises(ValueError, match="trained weights"):
        model.fit(X, Y, verbose=0)


def test_a_weight_with_a_regularizer_is_refused():
    optimizer = Proximal(SGD(), {"kernel": kp.penalties.L1(0.1)})
    model = linear(optimizer, kernel_regularizer="l2")
    with pytest.raises(ValueError, match=r"without a regularizer.*line/kernel"):
        model.fit(X, Y, verbose=0)


def hosted_twice(inside, outside, functional=True):
    """A kernel with one penalty by gradient, and another by its proximal map."""
    dense = keras.layers.Dense(1, name="line")
    layer = kp.layers.Penalized(dense, weights={"kernel": inside})
    model = keras.Sequential([*([keras.Input((3,))] if functional else []), layer])
    model.compile(Proximal(SGD(0.1), {"line/kernel": outside}), "mse")
    return model


@pytest.mark.parametrize("functional", [True, False])
def test_a_weight_that_a_layer_penalises_alike_is_refused(functional):
    model = hosted_twice("l2(0.1) + l1(0.1)", "l1(0.2)", functional)
    with pytest.raises(
        ValueError, match=r"no layer puts on.*line/kernel.*L1.*keep one"
    ):
        model.fit(X, Y, verbose=0)


def test_a_weight_may_have_one_kind_by_gradient_and_another_by_map(tmp_path):
    model = hosted_twice("l2(0.1)", "l1(0.2)")
    model.fit(X, Y, verbose=0)
    hosts = [(t.host, t.penalty.name) for t in kp.terms(model)]
    assert hosts == [("layer", "l2"), ("optimizer", "l1")]
    model.save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras").fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("penalties", "message"),
    [
        ({}, "not empty"),
        (kp.penalties.L1(0.1), "a dict"),
        ({"(": "l2(0.1)"}, "regular expressions"),
        ({3: kp.penalties.L2(0.1)}, "regular expressions"),
        ({"kernel": "kl_sparsity(0.1)"}, "no statistics"),
        ({"kernel": "spectral_norm(0.1)"}, "proximal map"),
    ],
)
def test_bad_penalties_are_refused_at_once(penalties, message):
    with pytest.raises(ValueError, match=rf"`penalties`.*{message}.*Received"):
        Proximal("sgd", penalties)


def test_a_matrix_penalty_on_a_vector_is_refused():
    nuclear = kp.penalties.Spectral(kp.penalties.L1(0.1))
    optimizer = Proximal("sgd", {"bias": nuclear})
    with pytest.raises(ValueError, match=r"'bias', of shape \(2,\)"):
        optimizer.build([keras.Variable(np.ones(2, "float32"), name="bias")])


def test_an_inner_optimizer_serves_one_wrapper_only():
    inner = SGD()
    Proximal(inner, {"kernel": kp.penalties.L1(0.1)})
    with pytest.raises(ValueError, match="already the inner optimizer"):
        Proximal(inner, {"kernel": kp.penalties.L1(0.1)})


def test_a_proximal_inside_a_proximal_is_refused():
    inner = Proximal(SGD(), {"bias": kp.penalties.L1(0.1)})
    with pytest.raises(ValueError, match="all penalties to one Proximal"):
        Proximal(inner, {"kernel": kp.penalties.L1(0.1)})
