"""Arrays that a penalty is anchored to lie in its host's weights, not in its config."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp
from keras_penalties.anchors import LIMIT
from keras_penalties.layers import ActivityPenalty, Penalized
from keras_penalties.optimizers import Penalizing, Proximal

P = kp.penalties
SGD = keras.optimizers.SGD
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 40)).astype("float32")
Y = (X @ RNG.normal(size=(40, 30))).astype("float32") / 8
LARGE, OTHER = RNG.normal(size=(2, 40, 30)).astype("float32")
WEIGHTS = RNG.uniform(size=(40, 30)).astype("float32")
DATA = {"batch_size": 8, "shuffle": False, "verbose": 0}
HOSTS = ["layer", "penalize", "Penalizing", "Proximal"]


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def hosted(host, penalty):
    """A model of one weight, `line/kernel`, and the layer that holds the weight."""
    line = keras.layers.Dense(30, use_bias=False, name="line")
    inputs, inner = keras.Input((40,)), SGD(0.5)
    if host == "layer":
        wrapped = Penalized(line, weights={"kernel": penalty})
        model, optimizer = keras.Model(inputs, wrapped(inputs)), inner
    elif host == "penalize":
        plain, optimizer = keras.Model(inputs, line(inputs)), inner
        model = kp.penalize(plain, {"line/kernel": penalty})
    else:
        model = keras.Model(inputs, line(inputs))
        optimizer = getattr(kp.optimizers, host)(inner, {"line/kernel": penalty})
    model.compile(optimizer, "mse")
    return model, line


def slot(penalty):
    layer = keras.layers.Dense(30, kernel_regularizer=penalty)
    layer.build((None, 40))
    return layer


def value(model):
    """The sum of the terms on the weight as it is, whoever hosts them."""
    terms = kp.terms(model)
    total = sum(t.present() for t in terms)
    if terms[0].host == "layer" and model.compiled:  # then the logs have it too
        logs = model.evaluate(X, Y, verbose=0, return_dict=True)
        logged = sum(v for k, v in logs.items() if k != "loss")
        np.testing.assert_allclose(logged, total, rtol=1e-5)
    return total


def distance(weights, x, values):
    return 0.5 * np.sum(weights * (np.asarray(x, "float64") - values) ** 2)


# The start.


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("host", HOSTS)
def test_the_start_is_the_weight_before_the_first_step(host, tmp_path):
    model, line = hosted(host, P.ToReference(2.0, "start"))
    assert value(model) == 0.0
    line.kernel.assign(LARGE)  # loaded after all is built
    assert value(model) == 0.0
    model.fit(X, Y, epochs=2, **DATA)
    expected = distance(2.0, numpy(line.kernel), LARGE)
    assert expected > 0.01
    np.testing.assert_allclose(value(model), expected, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(value(loaded), expected, rtol=1e-5)
    for m in (model, loaded):
        m.fit(X, Y, epochs=2, **DATA)
    np.testing.assert_array_equal(
        *(numpy(m.trainable_variables[0]) for m in (model, loaded))
    )


@pytest.mark.parametrize("host", HOSTS)
def test_the_start_trains_as_its_array_does(host):
    kernels = []
    for values in ("start", LARGE):
        model, line = hosted(host, P.ToReference(2.0, values, WEIGHTS) + P.L1(0.01))
        line.kernel.assign(LARGE)
        model.fit(X, Y, epochs=2, **DATA)
        kernels.append(numpy(line.kernel))
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-6)


def test_a_string_asks_for_the_start():
    assert P.get("to_reference(0.1, values='start')") == P.ToReference(0.1, "start")


def test_a_frozen_weight_has_its_start_when_it_begins_to_move():
    model, line = hosted("layer", P.ToReference(2.0, "start"))
    line.trainable = False
    model.compile(SGD(0.5), "mse")
    with pytest.warns(UserWarning, match="frozen"):
        model.fit(X, Y, **DATA)
    line.kernel.assign(LARGE)
    line.trainable = True
    model.compile(SGD(0.5), "mse")
    model.fit(X, Y, **DATA)
    expected = distance(2.0, numpy(line.kernel), LARGE)
    np.testing.assert_allclose(value(model), expected, rtol=1e-5)


def test_an_attention_layer_is_built_before_it_has_a_start(tmp_path):
    def model(built):
        attention = keras.layers.MultiHeadAttention(2, 3, name="attention")
        x = keras.Input((4, 6))
        if built:
            attention(x, x)
        penalty = P.ToReference(1.0, "start")
        wrapped = Penalized(attention, weights={"query/kernel": penalty})
        made = keras.Model(x, wrapped(x, x))
        made.compile(SGD(0.5), "mse")
        return made

    with pytest.raises(ValueError, match=r"not built yet\. Build or call"):
        model(built=False)
    made, x = model(built=True), RNG.normal(size=(8, 4, 6))
    made.fit(x, x, verbose=0)
    made.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    logs = [m.evaluate(x, x, verbose=0) for m in (made, loaded)]
    np.testing.assert_allclose(*logs, rtol=1e-6)


def test_in_half_precision_the_anchor_is_whole():
    keras.config.set_dtype_policy("mixed_float16")
    model, line = hosted("layer", P.ToReference(2.0, "start"))
    line.kernel.assign(LARGE)
    model.fit(X, Y, **DATA)
    anchor = model.layers[-1].anchor_weights[0]
    np.testing.assert_array_equal(ops.convert_to_numpy(anchor), LARGE)


@pytest.mark.parametrize(
    "apply",
    [
        lambda p: p(LARGE),
        lambda p: p.value(LARGE),
        lambda p: p.prox(LARGE, 0.1),
        lambda p: slot(p).losses,
    ],
)
def test_who_keeps_no_weights_refuses_the_start(apply):
    with pytest.raises(ValueError, match=r"somebody who keeps.*Penalized.*Penalizing"):
        apply(P.ToReference(1.0, "start"))


def test_an_output_has_no_start():
    with pytest.raises(ValueError, match="penalise a weight only"):
        ActivityPenalty(P.ToReference(1.0, "start"))


# Large arrays.

SUM = P.ToReference(2.0, LARGE) + P.ToReference(0.5, OTHER, WEIGHTS) + P.L1(0.01)


def of_sum(x):
    parts = distance(2.0, x, LARGE) + distance(0.5 * WEIGHTS, x, OTHER)
    return parts + 0.01 * np.sum(np.abs(x))


CARRY_ON = """
import keras, numpy as np, keras_penalties
data = np.load("data.npz")
for host in ["layer", "penalize", "Penalizing", "Proximal"]:
    model = keras.saving.load_model(f"{host}.keras")
    print(model.evaluate(data["x"], data["y"], verbose=0, return_dict=True)["loss"])
    model.fit(data["x"], data["y"], epochs=2, batch_size=8, shuffle=False, verbose=0)
    (kernel,) = model.trainable_weights
    np.savez(f"{host}.npz", keras.ops.convert_to_numpy(kernel))
    model.save(f"{host}.keras")  # and once more, from what was loaded
    model = keras.saving.load_model(f"{host}.keras")
    print(model.evaluate(data["x"], data["y"], verbose=0, return_dict=True)["loss"])
"""


def test_they_are_saved_as_weights(tmp_path, fresh_process):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    losses, after = [], {}
    for host in HOSTS:
        model, line = hosted(host, SUM)
        model.fit(X, Y, epochs=2, **DATA)
        np.testing.assert_allclose(value(model), of_sum(numpy(line.kernel)), rtol=1e-5)
        path = tmp_path / f"{host}.keras"
        model.save(path)
        assert zipfile.ZipFile(path).getinfo("config.json").file_size < 10_000
        losses.append(model.evaluate(X, Y, verbose=0, return_dict=True)["loss"])
        model.fit(X, Y, epochs=2, **DATA)
        losses.append(model.evaluate(X, Y, verbose=0, return_dict=True)["loss"])
        after[host] = numpy(line.kernel)
    printed = [float(line) for line in fresh_process(CARRY_ON).split()]
    np.testing.assert_allclose(printed, losses, rtol=1e-6)
    for host, kernel in after.items():
        (found,) = np.load(tmp_path / f"{host}.npz").values()
        np.testing.assert_array_equal(found, kernel)


def test_a_sum_of_anchors_keeps_its_proximal_map():
    model, line = hosted("Proximal", SUM)
    start, rate = numpy(line.kernel), 0.5
    model.fit(X, Y, batch_size=24, verbose=0)
    slope = 2 * X.T.astype("float64") @ (X @ start - Y) / Y.size
    # Squares completed, then the threshold of the L1.
    scale = 1 + rate * (2.0 + 0.5 * WEIGHTS)
    center = start - rate * slope + rate * (2.0 * LARGE + 0.5 * WEIGHTS * OTHER)
    moved = center / scale
    expected = np.sign(moved) * np.maximum(np.abs(moved) - rate * 0.01 / scale, 0)
    np.testing.assert_allclose(numpy(line.kernel), expected, atol=2e-6)


def test_weight_files(tmp_path):
    model, _ = hosted("layer", SUM)
    model.fit(X, Y, **DATA)
    model.save_weights(tmp_path / "w.weights.h5")
    other, _ = hosted("layer", SUM)
    other.load_weights(tmp_path / "w.weights.h5")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("host", ["layer", "penalize"])
def test_a_clone_has_the_numbers_and_the_start(host):
    model, _ = hosted(host, P.ToReference(1.0, "start"))
    assert value(keras.models.clone_model(model)) == 0.0
    model, _ = hosted(host, SUM)
    clone = keras.models.clone_model(model)
    clone.compile("sgd", "mse")
    kernel = numpy(clone.trainable_variables[0])
    np.testing.assert_allclose(value(clone), of_sum(kernel), rtol=1e-5)


def without_numbers(penalty):
    """The penalty as a fresh process has it from the config, before it has weights."""
    with kp.anchors.hosted():
        config = json.loads(json.dumps(penalty.get_config()))
    kp.anchors._ALIVE.clear()
    return type(penalty).from_config(config)


def test_an_array_that_is_missing_is_named():
    penalty = without_numbers(P.ToReference(1.0, 0.0, WEIGHTS))
    with pytest.raises(ValueError, match=r"shape \(40, 30\) lies in the weights"):
        penalty.value(LARGE)
    model, _ = hosted("layer", penalty)
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=r"line_kernel_to.*lacks.*`weights`.*Load"):
            run(X, Y, **DATA if run == model.fit else {})
    for host in ("Penalizing", "Proximal"):
        model, _ = hosted(host, penalty)
        model.fit(X, Y, **DATA)
        assert np.isnan(numpy(model.trainable_variables[0])).all()


def test_alike_and_equal_by_digest():
    near, again = (P.ToReference(1.0, LARGE.copy()) for _ in range(2))
    far = P.ToReference(1.0, OTHER)
    assert near == again
    assert hash(near) == hash(again)
    assert near.alike(2 * again)
    assert near != far
    assert not near.alike(far)
    # A fresh process that has no numbers can still tell them apart.
    loaded, other = without_numbers(near), without_numbers(far)
    assert loaded.alike(near)
    assert loaded == near
    assert not loaded.alike(far)
    assert not loaded.alike(other)


def test_a_million_numbers_are_compared_as_arrays(monkeypatch):
    """And not by the JSON of a config, which takes seconds."""
    dumps = json.dumps

    def short(value, **options):
        text = dumps(value, **options)
        assert len(text) < 10_000
        return text

    monkeypatch.setattr(json, "dumps", short)
    array = RNG.normal(size=(1000, 1000)).astype("float32")
    one, two = P.ToReference(1.0, array), P.ToReference(1.0, array)
    assert one == two
    assert one.alike(two)


@pytest.mark.parametrize(
    "serialize",
    [
        lambda p: p.get_config(),
        lambda p: keras.saving.serialize_keras_object(p),
        lambda p: slot(p).get_config(),
        lambda p: Penalized(slot(p), {"kernel": SUM}).get_config(),
    ],
)
def test_who_keeps_no_weights_refuses_to_write_them(serialize):
    with pytest.raises(ValueError, match=r"shape \(40, 30\).*1,000.*Put.*Penalized"):
        serialize(P.ToReference(1.0, LARGE))


def test_small_arrays_stay_in_the_config(tmp_path):
    small = np.linspace(-1, 1, LIMIT).astype("float32")
    config = P.ToReference(1.0, small).get_config()
    assert config["values"] == small.tolist()
    assert P.ToReference.from_config(json.loads(json.dumps(config))).values == (
        small.tolist()
    )
    assert type(P.ToReference(1.0, np.zeros(LIMIT + 1)).values) is kp.anchors.Anchor
    near = P.ToReference(1.0, np.arange(30.0))
    line = keras.layers.Dense(30, kernel_regularizer=near)
    model = keras.Sequential([keras.Input((40,)), line])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].kernel_regularizer == near
    assert len(hosted("layer", near)[0].weights) == 3  # with strength and sums


def test_errors_are_short():
    twice = P.ToReference(1.0, LARGE)
    small = P.ToReference(1.0, np.linspace(0, 1, LIMIT))
    made = [
        lambda: hosted("layer", twice + 2 * twice),
        lambda: hosted("layer", small + 2 * small),
        lambda: Proximal("sgd", {"kernel": twice + P.Acyclicity()}),
        lambda: Penalizing("sgd", {"kernel": small + P.Box()}),
        lambda: P.ToReference(1.0, LARGE, -WEIGHTS),
        lambda: twice.value(np.zeros(3)),
    ]
    for make in made:
        with pytest.raises(ValueError, match=r"Received|shape|constraint") as error:
            make()
        assert len(str(error.value)) < 2000


def test_a_million_anchored_weights_take_four_bytes_each_in_the_file(tmp_path):
    array, sizes = RNG.normal(size=(1000, 1000)).astype("float32"), {}
    for name, penalty in {
        "plain": P.L2(0.1),
        "start": P.ToReference(0.1, "start"),
        "array": P.ToReference(0.1, array),
    }.items():
        line, inputs = keras.layers.Dense(1000, use_bias=False), keras.Input((1000,))
        layer = Penalized(line, weights={"kernel": penalty})
        model = keras.Model(inputs, layer(inputs))
        path = tmp_path / f"{name}.keras"
        model.save(path)
        keras.saving.load_model(path)
        sizes[name] = path.stat().st_size
    for name in ("start", "array"):
        assert sizes[name] <= sizes["plain"] + 4 * array.size + 10_000


def test_a_penalised_model_keeps_its_start(tmp_path, fresh_process):
    """L2-SP of a whole model: 0 at first, and the same start after a reload."""
    dense = keras.layers.Dense(2, name="line")
    base = keras.Sequential([keras.Input((3,)), dense])
    start = keras.ops.convert_to_numpy(dense.kernel)
    rules = {"line/kernel": kp.penalties.ToReference(0.5, "start")}
    model = kp.penalize(base, rules)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    first = model.fit(x, y, batch_size=4, epochs=1, verbose=0).history
    assert [v for n, v in first.items() if n != "loss"] == [[0.0]]
    model.save(tmp_path / "m.keras")
    moved = keras.ops.convert_to_numpy(dense.kernel) - start
    expected = 0.5 * 0.5 * float((moved**2).sum())
    printed = fresh_process(
        "import keras, numpy as np, keras_penalties as kp\n"
        f"model = keras.saving.load_model({str(tmp_path / 'm.keras')!r})\n"
        "logs = model.evaluate(np.ones((4, 3)), np.ones((4, 2)), verbose=0,"
        " return_dict=True)\n"
        "print(*[v for n, v in logs.items() if n != 'loss'])"
    )
    assert float(printed.split()[-1]) == pytest.approx(expected, rel=1e-5)
