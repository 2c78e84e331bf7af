"""`Penalizing`: the steps of a layer's penalties, for models without a graph."""

from __future__ import annotations

import functools
import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from virtual_devices import EIGHT_CPUS, NET, TWO_CPUS, grid

import keras_penalties as kp
from keras_penalties.callbacks import LogTerms, TermLogger
from keras_penalties.optimizers import Penalizing, Proximal
from keras_penalties.strengths import Lazy, LinearRamp

P = kp.penalties
BACKEND = keras.backend.backend()
SGD = keras.optimizers.SGD
X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = (X @ np.linspace(-1, 1, 12).reshape(6, 2)).astype("float32")
DATA = {"batch_size": 8, "shuffle": False, "verbose": 0}


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


@kp.register(package="tests")
class Task(keras.Model):
    """A subclassed model, with a `compile` of its own, as a task of KerasHub has."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(5, activation="tanh", name="first")
        self.second = keras.layers.Dense(2, name="second")

    def call(self, x):
        return self.second(self.first(x))

    def compile(self, optimizer="sgd", loss="mse", **kwargs):
        super().compile(optimizer=optimizer, loss=loss, **kwargs)


def by_layers(optimizer, penalties):
    layers = {"first": {"units": 5, "activation": "tanh"}, "second": {"units": 2}}
    model = keras.Sequential([keras.Input((6,))])
    for name, arguments in layers.items():
        layer = keras.layers.Dense(name=name, **arguments)
        own = {p.split("/")[1]: v for p, v in penalties.items() if p.startswith(name)}
        model.add(kp.layers.Penalized(layer, weights=own) if own else layer)
    model.compile(optimizer, "mse")
    return model


def trained(optimizer, penalties=None, epochs=2):
    """The model's trained weights, and the model; the penalties are the layers'."""
    keras.utils.set_random_seed(0)
    model = by_layers(optimizer, penalties or {})
    rng = np.random.default_rng(3)
    for w in model.trainable_variables:
        w.assign(rng.normal(size=w.shape) * 0.5)
    model.fit(X, Y, epochs=epochs, **DATA)
    return [numpy(w) for w in model.trainable_variables], model


def same(a, b, rtol=2e-5):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-6)


REFERENCE = np.linspace(-1, 1, 30).reshape(6, 5)
PENALTIES = {
    "sum": P.L1(0.05) + P.ToReference(0.2, REFERENCE),
    "start": P.ToReference(0.5, "start"),
    "group": "grouped(l1(0.1), axis=-1)",
    "no prox": P.Orthogonality(0.1),
    "ramp": P.L2(LinearRamp(0.0, 0.2, 6)),
    "below": P.L2(kp.Target(0.1, rate=0.02)),
    "equal": P.L2(kp.Target(9.0, kind="==", rate=0.02)),
    "above": P.L2(kp.Target(30.0, kind=">=", rate=0.02)),
    "density": P.L1(
        kp.Target(0.5, of="density", relative=True, initial=0.1, tolerance=0.1)
    ),
    "lazy": P.L2(Lazy(0.1, every=3)),
}


@functools.cache
def without_penalties(inner):
    return trained(inner())


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("inner", [lambda: SGD(0.1), lambda: SGD(0.1, clipnorm=0.2)])
def test_its_steps_are_the_layers(name, inner):
    penalties = {"first/kernel": PENALTIES[name], "second/bias": "l2(0.3)"}
    expected, _ = trained(inner(), penalties)
    plain, _ = without_penalties(inner)
    found, _ = trained(Penalizing(inner(), penalties))
    same(found, expected)
    assert not np.allclose(found[0], plain[0], atol=1e-3)


INNERS = {
    "adam": lambda: keras.optimizers.Adam(0.02),
    "averages": lambda: keras.optimizers.Adam(
        0.02, use_ema=True, ema_overwrite_frequency=None if BACKEND == "jax" else 4
    ),
    "accumulation": lambda: SGD(0.1, gradient_accumulation_steps=3, clipvalue=0.05),
    "scaled loss": lambda: SGD(0.1, loss_scale_factor=64.0),
    "lion": lambda: keras.optimizers.Lion(0.01),
}


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("inner", INNERS)
def test_with_all_that_an_inner_optimizer_does(inner):
    penalties = {"first/kernel": "l2(0.2) + l1(0.02)", "second/kernel": "mcp(0.1)"}
    expected, _ = trained(INNERS[inner](), penalties)
    found, _ = trained(Penalizing(INNERS[inner](), penalties))
    same(found, expected, 1e-4)


def test_under_loss_scaling_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    penalties = {
        "first/kernel": P.L2(kp.Target(0.1, rate=0.02)),
        "second/bias": "l1(1)",
    }
    scale = keras.optimizers.LossScaleOptimizer
    expected, _ = trained(scale(SGD(0.1), initial_scale=64.0), penalties)
    optimizer = Penalizing(SGD(0.1), penalties)
    found, _ = trained(scale(optimizer, initial_scale=64.0))
    same(found, expected, 2e-3)
    assert numpy(optimizer.state.vector)[0] > 0


def apply_scaled(optimizer, gradient, variable):
    if BACKEND != "jax":
        optimizer.apply([gradient], [variable])
        return
    state = [v.value for v in optimizer.variables]
    (new,), state = optimizer.stateless_apply(state, [gradient], [variable.value])
    for v, value in zip([variable, *optimizer.variables], [new, *state], strict=True):
        v.assign(value)


def test_a_step_that_loss_scaling_skips_takes_the_state_back():
    target = kp.Target(0.0, rate=0.5, damping=0.0)
    optimizer = Penalizing(
        SGD(0.1), {"kernel": P.L1(target) + P.ToReference(1, "start")}
    )
    outer = keras.optimizers.LossScaleOptimizer(optimizer)
    variable = keras.Variable(np.ones(2, "float32"), name="kernel")
    outer.build([variable])
    apply_scaled(outer, ops.array([np.inf, 0.0]), variable)
    assert numpy(optimizer.state.vector).tolist() == [0.0, 1.0]
    assert np.isnan(numpy(optimizer.inner.variables[-1])).all()
    apply_scaled(outer, ops.zeros(2), variable)
    assert numpy(optimizer.state.vector)[0] == 1.0
    np.testing.assert_array_equal(numpy(optimizer.inner.variables[-1]), np.ones(2))


def test_a_multiplier_moves_on_real_steps_only():
    target = kp.Target(0.0, rate=0.5, damping=0.0)
    inner = SGD(0.0, gradient_accumulation_steps=2)
    optimizer = Penalizing(inner, {"kernel": P.L1(target)})
    optimizer.build([keras.Variable(np.ones(2, "float32"), name="kernel")])
    seen = []
    for _ in range(4):
        optimizer.apply([ops.zeros(2)])
        seen.append(float(numpy(optimizer.state.vector)[0]))
    assert seen == [0.0, 1.0, 1.0, 2.0]


def test_a_sparse_gradient_and_none():
    """An embedding has a sparse one on TensorFlow; a weight may lack one."""
    layer = keras.layers.Embedding(4, 2, embeddings_initializer="ones")
    model = keras.Sequential([layer])
    model.compile(Penalizing(SGD(0.1), {"embeddings": "l2(0.5)"}), lambda y, p: 0.0 * p)
    model.fit(np.zeros((4, 1), "int32"), np.zeros((4, 1, 2)), verbose=0)
    np.testing.assert_allclose(numpy(layer.embeddings), 0.9, rtol=1e-6)
    optimizer = Penalizing(SGD(0.1), {"alone": "l2(0.5)"})
    alone, other = (
        keras.Variable(np.ones(2, "float32"), name=name) for name in ("alone", "other")
    )
    optimizer.build([alone, other])
    optimizer.apply([None, ops.ones(2)], [alone, other])
    np.testing.assert_allclose(numpy(alone), 0.9, rtol=1e-6)


# Seen from outside.


def task(penalties, **kwargs):
    keras.utils.set_random_seed(0)
    model = Task()
    model.compile(Penalizing(SGD(0.1), penalties, **kwargs))
    return model


@pytest.mark.filterwarnings("ignore:Task has a `compile`")
def test_terms_strengths_and_logs():
    penalties = {
        "first/kernel": P.L2(0.5) + P.ToReference(1.0, "start"),
        "second/kernel": P.L1(LinearRamp(0.0, 0.1, 100)),
    }
    model, logger = task(penalties), TermLogger()
    model.build((None, 6))
    history = model.fit(X, Y, epochs=3, **DATA, callbacks=[LogTerms(), logger]).history
    names = {t.name.removeprefix("task_"): t for t in kp.terms(model)}
    found = {t.present() for t in names.values()}
    kernel = numpy(model.first.kernel)
    logs = {k: v[-1] for k, v in history.items()}
    l2 = next(v for k, v in logs.items() if k.endswith("first_kernel_l2"))
    np.testing.assert_allclose(l2, 0.5 * np.sum(kernel**2), rtol=1e-5)
    assert {t.host for t in names.values()} == {"optimizer"}
    assert found <= set(logs.values())
    moving = [k for k in logs if k.endswith("_strength")]
    assert len(moving) == 1
    np.testing.assert_allclose(logs[moving[0]], 0.1 * 18 / 100, rtol=1e-5)
    assert logger.rows[-1][next(k for k in logs if k.endswith("_l1"))] in found
    # The loss is the data's alone.
    data = float(np.mean((numpy(model(X)) - Y) ** 2))
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), data, rtol=1e-5)
    term = next(t.name for t in kp.terms(model) if t.name.endswith("_l2"))
    kp.set_strength(model, term, 0.0)
    assert next(t for t in kp.terms(model) if t.name == term).present() == 0.0


CARRY_ON = """
import keras, numpy as np, keras_penalties
data = np.load("data.npz")
model = keras.saving.load_model("model.keras")
model.fit(data["x"], data["y"], epochs=2, batch_size=8, shuffle=False, verbose=0)
state = [*model.weights, *model.optimizer.variables]
np.savez("after.npz", *[keras.ops.convert_to_numpy(v) for v in state])
"""


def test_it_goes_on_bit_for_bit_in_a_fresh_process(tmp_path, fresh_process):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    penalties = {
        "first/kernel": P.ToReference(0.5, "start") + P.L2(kp.Target(0.1)),
        "second/kernel": P.L1(LinearRamp(0.0, 0.1, 30)),
    }
    inner = keras.optimizers.Adam(0.02, clipnorm=1.0)
    _, model = trained(Penalizing(inner, penalties, name="mine"))
    model.save(tmp_path / "model.keras")
    model.fit(X, Y, epochs=2, **DATA)
    fresh_process(CARRY_ON)
    loaded = np.load(tmp_path / "after.npz").values()
    state = [*model.weights, *model.optimizer.variables]
    for variable, value in zip(state, loaded, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_config_goes_through_json():
    optimizer = Penalizing("adam", {"kernel": PENALTIES["below"]}, name="mine")
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert type(copy) is Penalizing
    assert (copy.name, copy.penalties) == ("mine", optimizer.penalties)
    assert config["config"]["inner"]["module"] == "keras.optimizers"


@pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called")
def test_a_model_that_loses_its_optimizer_is_told(tmp_path):
    model = task({"first/kernel": "l2(0.5)"})
    model.fit(X, Y, **DATA)
    with pytest.warns(
        UserWarning, match=r"Task has.*Penalizing.*model\.compile\(optim"
    ):
        kp.terms(model)
    with pytest.warns(UserWarning, match="Task has"):
        model.fit(X, Y, **DATA, callbacks=[LogTerms()])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not kp.terms(loaded)  # what the warning says is so
    loaded.compile(Penalizing(SGD(0.1), {"first/kernel": "l2(0.5)"}))
    for m in (model, loaded):
        m.fit(X, Y, **DATA)
    same(map(numpy, loaded.weights), map(numpy, model.weights))


def test_a_model_that_keeps_its_optimizer_is_not():
    _, model = trained(Penalizing("sgd", {"first/kernel": "l2(0.5)"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(kp.terms(model)) == 1


# What is refused.


@pytest.mark.parametrize(
    ("penalty", "match"),
    [
        (P.Box(-1.0, 1.0), "constraint"),
        ("kl_sparsity(1.0)", "no statistics"),
    ],
)
def test_penalties_that_cannot_act(penalty, match):
    with pytest.raises(ValueError, match=match):
        Penalizing("sgd", {"kernel": penalty})


def test_an_optimizer_that_scales_the_loss_goes_outside():
    with pytest.raises(ValueError, match=r"LossScaleOptimizer\(Penalizing"):
        Penalizing(keras.optimizers.LossScaleOptimizer(SGD()), {"kernel": "l2(0.1)"})


@pytest.mark.parametrize("kind", [Penalizing, Proximal])
def test_an_equal_penalty_of_a_layer(kind):
    model = by_layers(kind("sgd", {"kernel": "l2(0.5)"}), {"second/kernel": "l2(0.1)"})
    with pytest.raises(ValueError, match="Add the strengths"):
        model.fit(X, Y, **DATA)


def test_an_equal_slot_and_another_one():
    def optimizer(slot):
        layer = keras.layers.Dense(2, kernel_regularizer=slot)
        layer.build((None, 6))
        return Penalizing("sgd", {"kernel": "l2(0.5)"}), layer.trainable_variables

    for equal in ("l2", P.L2(0.1)):
        made, weights = optimizer(equal)
        with pytest.raises(ValueError, match="Add the strengths"):
            made.build(weights)
    made, weights = optimizer("l1")
    made.build(weights)
    assert len(made.terms) == 1


# Many devices.

TRAINING = (
    NET
    + """
def trained(inner):
    x, y, model = start()
    penalties = {
        "first/kernel": P.ToReference(0.5, "start", np.full((8, 16), 2.0)),
        "second/kernel": P.L2(kp.Target(0.5, kind="==", rate=0.01)),
        "second/bias": "l2(0.3)",
    }
    optimizer = kp.optimizers.Penalizing(keras.optimizers.get(inner), penalties)
    model.compile(optimizer, "mse")
    model.fit(x, y, epochs=4, batch_size=16, shuffle=False, verbose=0)
    return [keras.ops.convert_to_numpy(w) for w in model.weights]

def compare(one, many):
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    print("compared")

INNERS = [
    {"class_name": "SGD", "config": {"learning_rate": 0.05}},
    {"class_name": "SGD", "config": {"learning_rate": 0.02, "momentum": 0.9}},
]
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
for inner in INNERS:
    keras.distribution.set_distribution(None)
    one = trained(dict(inner))
    distribution = keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch")
    keras.distribution.set_distribution(distribution)
    compare(one, trained(dict(inner)))
"""
)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_mirrored_strategy(fresh_process):
    assert fresh_process(MIRRORED).count("compared") == 2


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="Keras' distribution is for JAX")
def test_model_parallel(fresh_process):
    assert fresh_process(SHARDED, XLA_FLAGS=EIGHT_CPUS).count("compared") == 2


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_a_lazy_strength_of_a_penalty_with_its_own_gradient(options):
    """At the steps 0 and 2 the slope of Σ‖row‖, twice as strong; between them none."""
    groups = kp.penalties.Grouped(kp.penalties.L1(kp.strengths.Lazy(0.5, 2)), axis=0)
    dense = keras.layers.Dense(2, kernel_initializer="ones", name="d")
    model = keras.Sequential([keras.Input((3,)), dense])
    rules = {"d/kernel": groups}
    optimizer = kp.optimizers.Penalizing(keras.optimizers.SGD(0.1), rules)
    model.compile(optimizer, "mse", **options)
    x = np.zeros((3, 3))
    model.fit(x, x[:, :2], batch_size=1, verbose=0)
    kernel = keras.ops.convert_to_numpy(dense.kernel)
    np.testing.assert_allclose(kernel, 1.0 - 2 * 0.1 / np.sqrt(2), rtol=1e-5)


def test_a_term_keeps_its_name_when_a_file_builds_the_model(tmp_path):
    """Keras puts a Sequential's name before its weights when a batch builds it."""
    model = keras.Sequential([keras.layers.Dense(1, name="line")], name="net")
    model.compile(kp.optimizers.Penalizing("sgd", {"kernel": "l2(0.5)"}), "mse")
    x = np.ones((4, 1))
    told = model.fit(x, x, verbose=0, callbacks=[LogTerms()]).history
    assert model.layers[0].kernel.path == "net/line/kernel"
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert (
        loaded.fit(x, x, verbose=0, callbacks=[LogTerms()]).history.keys()
        == told.keys()
    )
    for each in (model, loaded):
        kp.set_strength(each, "line_kernel_l2", 0.25)
        (term,) = kp.terms(each)
        assert (term.name, term.target, term.strength) == (
            "line_kernel_l2",
            "line/kernel",
            0.25,
        )
