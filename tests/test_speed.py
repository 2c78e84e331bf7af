"""The ways that make a penalty cheap give what the plain formula gives."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_penalties as kp
from keras_penalties import compiling
from keras_penalties.autodiff import value_and_gradient
from keras_penalties.compiling import pays_to_fuse, pays_to_fuse_sum
from keras_penalties.sums import BLOCK, fused_sum

P = kp.penalties
LARGE = (300, 257)  # over 2^16 entries, and no multiple of the sums taken side by side
FUSED = [
    P.L1(0.5),
    P.L2(0.5),
    P.ElasticNet(0.5, l1_ratio=0.3),
    P.MCP(0.5, width=0.7),
    P.SCAD(0.5, knee=0.4),
    P.Grouped(P.L1(0.5), axis=0),
    P.Grouped(P.L1(0.5), axis=-1, weights="sqrt_size"),
    P.Grouped(P.MCP(0.5), axis=1),
]


@pytest.fixture(autouse=True)
def sums_of_small_weights_are_compiled(monkeypatch):
    """A sum of |x| is compiled from 2^20 entries on, which makes tests slow."""
    monkeypatch.setattr(compiling, "LARGE_SUM", compiling.LARGE)


def in_graph(fn):
    """`fn` as a training step has it: compiled, where the backend compiles."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(fn)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(fn)
    return fn


def entries(seed=0):
    x = np.random.default_rng(seed).normal(size=LARGE).astype("float32")
    x[::7] = 0.0
    return x


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("penalty", FUSED, ids=repr)
def test_a_large_weight_has_the_value_and_the_slope_of_its_parts(penalty):
    x = entries()
    found = in_graph(lambda x: value_and_gradient(penalty.value, x))(x)
    value, slope = map(ops.convert_to_numpy, found)
    if isinstance(penalty, P.Grouped):  # in blocks of whole groups
        axis = penalty.axis % 2
        numbers = range(0, LARGE[axis], 37)
        blocks = [np.take(x, range(n, min(n + 37, LARGE[axis])), axis) for n in numbers]
        joined = axis
    else:
        blocks, joined = [x[n : n + 37] for n in range(0, LARGE[0], 37)], 0
    parts = [value_and_gradient(penalty.value, b) for b in blocks]
    assert value == pytest.approx(
        sum(float(ops.convert_to_numpy(v)) for v, _ in parts), rel=1e-5
    )
    expected = np.concatenate([ops.convert_to_numpy(s) for _, s in parts], joined)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("penalty", FUSED[:5], ids=repr)
def test_a_large_weight_in_half_floats_is_summed_in_float32(penalty, dtype):
    """The same numbers in float32 say what is right: in half floats no sum goes on."""
    rng = np.random.default_rng(0)
    x = ops.cast(rng.normal(size=(BLOCK // 64 + 3, 67)).astype("float32"), dtype)
    found = in_graph(lambda x: value_and_gradient(penalty.value, x))(x)
    wide = ops.cast(x, "float32")
    expected, slope = value_and_gradient(penalty.value, wide)
    assert found[0].dtype == wide.dtype
    assert found[1].dtype == x.dtype
    value = float(ops.convert_to_numpy(found[0]))
    assert value == pytest.approx(float(ops.convert_to_numpy(expected)), rel=1e-5)
    got, right = (
        ops.convert_to_numpy(ops.cast(s, "float32")) for s in (found[1], slope)
    )
    np.testing.assert_allclose(got, right, rtol=2.0**-8, atol=1e-6)


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("penalty", FUSED, ids=repr)
def test_a_large_weight_moves_as_its_parts_do(penalty):
    x = entries()
    t = 0.3 if not penalty.per_entry else np.abs(entries(1)) + 0.01
    t = np.full(LARGE, t, "float32") if penalty.per_entry else np.float32(t)
    moved = np.array(in_graph(penalty.prox)(x, t))
    assert (moved == 0).sum() >= (x == 0).sum()
    kept = slice(None), slice(0, 40)
    if isinstance(penalty, P.Grouped) and penalty.axis % 2 == 0:
        kept = slice(0, 40), slice(None)
    if isinstance(penalty, P.Grouped) and penalty.weights:
        penalty = P.Grouped(penalty.penalty, penalty.axis, weights=[300**0.5] * 40)
    part = penalty.prox(x[kept], t[kept] if penalty.per_entry else t)
    np.testing.assert_allclose(moved[kept], np.array(part), rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it fuses by hand")
def test_what_is_fused_and_what_is_not():
    import tensorflow as tf

    answers = []

    @tf.function
    def graph(small, large, unknown):
        rows = tf.IndexedSlices(large, tf.range(LARGE[0]), tf.constant((900, 257)))
        answers.extend(pays_to_fuse(x) for x in (small, large, unknown, rows))

    graph.get_concrete_function(
        tf.TensorSpec((255, 257)), tf.TensorSpec(LARGE), tf.TensorSpec((None, 10**6))
    )
    assert answers == [False, True, False, False]
    assert not pays_to_fuse(tf.zeros(LARGE))  # an eager call would wait for a compiler


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it fuses by hand")
@pytest.mark.parametrize(("more", "expected"), [(0, True), (1, False)])
def test_a_sum_is_fused_from_a_number_of_entries_on(monkeypatch, more, expected):
    import tensorflow as tf

    monkeypatch.setattr(compiling, "LARGE_SUM", LARGE[0] * LARGE[1] + more)
    answers = []

    @tf.function
    def graph(x):
        answers.append((pays_to_fuse(x), pays_to_fuse_sum(x)))

    graph.get_concrete_function(tf.TensorSpec(LARGE))
    assert answers == [(True, expected)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it fuses by hand")
def test_the_gradient_of_a_fused_sum_can_be_differentiated():
    import tensorflow as tf

    x = tf.constant(entries())
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            total = fused_sum(lambda x: x**3)(x)
        slope = tf.reduce_sum(inner.gradient(total, x))
    np.testing.assert_allclose(outer.gradient(slope, x), 6 * x, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it fuses by hand")
def test_a_large_weights_slope_waits_for_the_gradient_of_what_the_layer_gave():
    """Else it would lie in memory from the start of a step."""
    import tensorflow as tf

    def named(name):
        @tf.custom_gradient
        def same(x):
            return tf.identity(x), lambda upstream: tf.identity(upstream, name=name)

        return same

    class Named(P.L1):
        def compute_value(self, x):
            return named("slope")(super().compute_value(x))

    dense = keras.layers.Dense(LARGE[1], use_bias=False)
    layer = kp.layers.Penalized(dense, weights={"kernel": Named(0.5)})
    x = tf.ones((2, LARGE[0]))
    layer(x)

    @tf.function
    def slope():
        with tf.GradientTape() as tape:
            outputs = named("loss")(layer(x))
            total = tf.reduce_sum(outputs) + sum(layer.losses)
        return tape.gradient(total, dense.kernel.value)

    kernel = ops.convert_to_numpy(dense.kernel)
    np.testing.assert_allclose(slope(), 2 + 0.5 * np.sign(kernel), rtol=1e-6)
    operations = slope.get_concrete_function().graph.get_operations()
    waiting = [o for o in operations if o.name.endswith("slope")]
    before = set()
    while waiting:
        operation = waiting.pop()
        found = {tensor.op for tensor in operation.inputs} | {*operation.control_inputs}
        waiting += found - before
        before |= found
    assert any(o.name.endswith("loss") for o in before)


@pytest.mark.parametrize("rows", [5, 400])  # the larger is fused on TensorFlow
@pytest.mark.parametrize("alone", [True, False])
def test_a_wrapped_layers_mask_goes_on(rows, alone):
    embedding = keras.layers.Embedding(rows, 200, mask_zero=True)
    inner = embedding if alone else keras.Sequential([keras.Input((3,)), embedding])
    layer = kp.layers.Penalized(inner, weights={"embeddings": "l1"})
    pool = keras.layers.GlobalAveragePooling1D()
    model = keras.Sequential([keras.Input((3,)), layer, pool])
    model.compile("sgd", "mse")
    x = np.array([[1, 2, 0], [3, 0, 0]])
    vectors = ops.convert_to_numpy(embedding.embeddings)[x]
    means = np.stack([vectors[0, :2].mean(0), vectors[1, 0]])
    logs = model.evaluate(x, means, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(logs[layer.terms[0].name], rel=1e-6)


def test_a_large_wrapped_layer_may_give_integers_too():
    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=LARGE, name="kernel")

        def call(self, inputs):
            return ops.cast(inputs, "int32"), inputs * ops.sum(self.kernel)

    inputs = keras.Input((3,))
    layer = kp.layers.Penalized(Counts(), weights={"kernel": "l2"})
    model = keras.Model(inputs, layer(inputs)[1])
    model.compile("sgd", "mse")
    x = np.ones((2, 3))
    assert np.isfinite(model.fit(x, x, verbose=0).history["loss"][0])


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="it gives memory away")
@pytest.mark.parametrize("penalty", FUSED, ids=repr)
def test_a_step_makes_no_copy_of_a_large_weight(penalty):
    """As it does where nothing waits for the value: `read_first` says why."""
    import jax

    def copies(penalised):
        def step(w, x):
            def loss(w):
                return ops.sum((x @ w) ** 2) + penalised(w)

            value, slope = jax.value_and_grad(loss)(w)
            return value, w - 0.1 * slope

        given = np.zeros(LARGE, "float32"), np.zeros((8, LARGE[0]), "float32")
        compiled = jax.jit(step, donate_argnums=0).lower(*given).compile()
        main = compiled.as_text().split("ENTRY")[1]
        return main.count(f"[{LARGE[0]},{LARGE[1]}]{{1,0}} copy(")

    assert copies(lambda w: 0.0) == copies(penalty) == 0


def penalized(strength, shape=(4,), **kwargs):
    dense = keras.layers.Dense(3, name="dense")
    penalty = P.L1(strength)
    layer = kp.layers.Penalized(dense, weights={"kernel": penalty}, **kwargs)
    model = keras.Sequential([keras.Input(shape), layer])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model, layer


def test_a_model_is_made_and_loaded_without_a_trace_of_the_wrapped_layer(
    monkeypatch, tmp_path
):
    model, _ = penalized(0.1)
    model.save(tmp_path / "model.keras")

    @functools.wraps(keras.layers.Dense.call)  # Keras reads its signature
    def call(*args, **kwargs):
        pytest.fail("traced")

    monkeypatch.setattr(keras.layers.Dense, "call", call)
    assert penalized(0.1)[0].output_shape == (None, 3)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.output_shape == (None, 3)
    misnamed = kp.layers.Penalized(keras.layers.Dense(3), weights={"nothing": "l1"})
    with pytest.raises(ValueError, match="names that fit one weight"):
        misnamed(keras.Input((4,)))


def test_a_layer_that_knows_no_shapes_is_traced():
    class Odd(keras.layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1],), name="kernel")

        def call(self, inputs):
            return {"both": ops.concatenate([inputs, inputs * self.kernel], axis=-1)}

    layer = kp.layers.Penalized(Odd(), weights={"kernel": "l1"})
    assert layer(keras.Input((4,)))["both"].shape == (None, 8)


def test_predict_computes_no_term(monkeypatch):
    model, layer = penalized(0.1)
    x, y = np.ones((8, 4)), np.ones((8, 3))
    model.fit(x, y, verbose=0)
    before = ops.convert_to_numpy(layer.sums).copy()
    asked = []
    monkeypatch.setattr(
        P.L1, "compute_value", lambda self, x: asked.append(x) or ops.sum(x)
    )
    model.predict(x, verbose=0)
    model.predict_on_batch(x)
    assert not asked
    np.testing.assert_array_equal(layer.sums, before)
    model.compile("sgd", "mse")
    model.evaluate(x, y, verbose=0)
    assert asked


@pytest.mark.parametrize("jit", [False, True])
def test_a_lazy_penalty_is_k_times_as_strong_at_every_kth_step(jit):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch compiles with a C++ compiler only")
    steps, found = 8, {}
    x = np.zeros((steps, 4))  # the loss alone moves nothing
    for strength in (0.1, kp.strengths.Lazy(0.1, every=4)):
        model, layer = penalized(strength)
        model.compile(keras.optimizers.SGD(0.001), "mse", jit_compile=jit)
        layer.layer.kernel.assign(np.ones((4, 3)))
        history = model.fit(x, np.zeros((steps, 3)), batch_size=1, verbose=0).history
        found[type(strength)] = ops.convert_to_numpy(layer.layer.kernel), history
    (plain, _), (lazy, history) = found.values()
    np.testing.assert_allclose(lazy, plain, rtol=1e-5)
    np.testing.assert_allclose(lazy, 1 - 8 * 0.001 * 0.1, rtol=1e-5)
    assert history["dense_kernel_l1_strength"] == [pytest.approx(0.1)]
    assert history["dense_kernel_l1"] == [pytest.approx(1.2, rel=1e-2)]
    evaluated = model.evaluate(x, np.zeros((steps, 3)), return_dict=True, verbose=0)
    assert evaluated["dense_kernel_l1"] == pytest.approx(0.1 * lazy.sum(), rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch counts the calls")
def test_between_a_lazy_penaltys_steps_nothing_is_computed(monkeypatch):
    model, _ = penalized(kp.strengths.Lazy(0.1, every=4))
    asked = []
    monkeypatch.setattr(
        P.L1, "compute_value", lambda self, x: asked.append(x) or ops.sum(x)
    )
    model.fit(np.zeros((8, 4)), np.zeros((8, 3)), batch_size=1, verbose=0)
    assert len(asked) == 2


def test_proximal_refuses_a_lazy_penalty():
    lazy = P.L1(kp.strengths.Lazy(0.1))
    with pytest.raises(ValueError, match="act at every step"):
        kp.optimizers.Proximal("sgd", {"kernel": lazy})


def test_a_strength_of_zero_in_a_slot_costs_nothing(monkeypatch):
    monkeypatch.setattr(P.L1, "compute_value", lambda self, x: pytest.fail("computed"))
    assert float(P.L1(0.0)(np.ones((2, 2), "float32"))) == 0.0


INNER = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.05, 0.9, nesterov=True),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True, use_ema=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, clipnorm=1.0),
    "nadam": lambda: keras.optimizers.Nadam(0.01, gradient_accumulation_steps=2),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "adadelta": lambda: keras.optimizers.Adadelta(1.0),
}
GIVEN = {
    "l1": P.L1(0.02),
    "grouped": P.Grouped(P.L1(0.02), axis=-1),
    "elastic": P.ElasticNet(0.02),
    "mcp": P.MCP(0.02, width=0.01),  # of which a step may be shortened
}
EACH = [("adam", penalty) for penalty in GIVEN] + [(name, "l1") for name in INNER]


def steps_of_both(monkeypatch, trained):
    """What `trained()` gives where TensorFlow fuses, and where it does not."""
    fused, home = trained(), "keras_penalties.{}.pays_to_fuse"
    monkeypatch.setattr("keras_penalties.optimizers.proximal.fused", pytest.fail)
    for module in ("optimizers.proximal", "penalties.base"):
        monkeypatch.setattr(home.format(module), lambda x: False)
    return fused, trained()


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize(("name", "penalty"), dict.fromkeys(EACH))
def test_a_large_weight_takes_the_proximal_steps_of_a_plain_one(
    monkeypatch, name, penalty
):
    """Compiled with the inner update or op by op: the same weights, the same zeros."""

    def trained():
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense(LARGE[1], use_bias=False, name="dense")
        model = keras.Sequential([keras.Input((LARGE[0],)), dense])
        given = {"kernel": GIVEN[penalty]}
        model.compile(kp.optimizers.Proximal(INNER[name](), given), "mse")
        x = np.random.default_rng(3).normal(size=(64, LARGE[0])).astype("float32")
        model.fit(x, x[:, : LARGE[1]], epochs=3, batch_size=16, verbose=0)
        state = [dense.kernel, *model.optimizer.variables]
        return [ops.convert_to_numpy(v) for v in state if v.shape == LARGE]

    found, expected = steps_of_both(monkeypatch, trained)
    for now, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(now, plain, rtol=1e-4, atol=1e-6)
    assert ((found[0] == 0) == (expected[0] == 0)).mean() > 0.9999
    assert (found[0] == 0).any() == (expected[0] == 0).any()


def test_an_embedding_takes_proximal_steps_by_batches_of_any_size(monkeypatch):
    """TensorFlow's gradient of it is of the rows that a batch has."""

    def trained():
        keras.utils.set_random_seed(0)
        embedding = keras.layers.Embedding(LARGE[0], LARGE[1], name="e")
        model = keras.Sequential([keras.Input((3,)), embedding])
        proximal = kp.optimizers.Proximal("adam", {"embeddings": P.L1(0.02)})
        model.compile(proximal, "mse")
        for size in (4, 7):
            x = np.random.default_rng(size).integers(0, LARGE[0], (size, 3))
            model.train_on_batch(x, np.ones((size, 3, LARGE[1])))
        return ops.convert_to_numpy(embedding.embeddings)

    found, expected = steps_of_both(monkeypatch, trained)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert ((found == 0) == (expected == 0)).mean() > 0.9999
