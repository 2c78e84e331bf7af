"""`activations`: a layer's rows, each once a pass, whatever model and dataset."""

from __future__ import annotations

import gc
import itertools
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(21, 6, 6, 2)).astype("float32")
TOKENS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 1], [0, 0, 0, 0]])
BACKEND = keras.backend.backend()


def conv_net(**kwargs):
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, name="first", **kwargs)(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(5, 2, activation="relu", name="second")(x)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(2, name="top")(x))


def in_order(model, layer, data, **kwargs):
    """All rows, in the order of the dataset."""
    stream = kp.activations(
        model,
        layer,
        data,
        batch_size=kwargs.pop("batch_size", 7),
        buffer_size=0,
        targets=False,
        drop_remainder=False,
        **kwargs,
    )
    return np.concatenate([x for (x,) in stream])


def by_keras(model, tensor, data):
    """The rows of a tensor of a functional model, by Keras' own `predict`."""
    found = keras.Model(model.inputs, tensor).predict(data, verbose=0)
    return found.reshape(-1, found.shape[-1])


def same(a, b, **kwargs):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, **kwargs)


def as_sorted(rows):
    return rows[np.lexsort(rows.T)]


def numbered(count, features=1):
    """A model that gives its input on, and samples that carry their numbers."""
    keep = layers.Dense(features, kernel_initializer="identity", name="keep")
    model = keras.Sequential([keras.Input((features,)), keep])
    return model, np.arange(count, dtype="float32")[:, None] + np.zeros(features)


def firsts(batches):
    return np.concatenate([batch[0][:, 0] for batch in batches])


# Which rows


@pytest.mark.parametrize("name", ["first", "norm", "second", "pool", "top"])
def test_rows_of_each_layer_are_those_of_predict(name):
    model = conv_net()
    expected = by_keras(model, model.get_layer(name).output, IMAGES)
    same(in_order(model, name, IMAGES), expected)
    same(in_order(model, model.get_layer(name), IMAGES), expected)


def test_a_sequential_model():
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 2, name="c")])
    model.add(layers.Flatten())
    same(in_order(model, "c", IMAGES), by_keras(model, model.layers[0].output, IMAGES))


def test_a_layer_inside_models_by_its_address():
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, "relu", name="dense"), layers.Dense(2)],
        name="inner",
    )
    inputs = keras.Input((3,))
    block = keras.Model(inputs, inner(inputs) + 1.0, name="block")
    start = keras.Input((3,))
    model = keras.Model(start, block(layers.Dense(3, name="dense")(start)))
    x = RNG.normal(size=(5, 3)).astype("float32")
    before = by_keras(model, model.get_layer("dense").output, x)
    same(in_order(model, "dense", x), before)
    expected = ops.convert_to_numpy(inner.layers[0](before))
    for address in ("block/inner/dense", "inner/dense", inner.layers[0]):
        same(in_order(model, address, x), expected)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4, "relu", name="hidden")
        self.top = layers.Dense(2, name="top")

    def call(self, inputs, training=False):
        x = self.hidden(inputs["x"])
        return self.top(ops.where(training, ops.zeros_like(x), x))


def test_a_subclassed_model():
    model, x = Subclassed(), RNG.normal(size=(9, 3)).astype("float32")
    expected = model({"x": x})
    same(in_order(model, "top", {"x": x}), ops.convert_to_numpy(expected))
    hidden = ops.convert_to_numpy(model.hidden(x))
    same(in_order(model, "hidden", {"x": x}), hidden)


def test_a_branch_of_a_model_with_several_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(4, name="hidden")
    model = keras.Model({"a": a, "b": b}, [hidden(b), layers.Dense(2)(a)])
    data = {"a": RNG.normal(size=(9, 2)), "b": RNG.normal(size=(9, 3))}
    same(in_order(model, "hidden", data), model.predict(data, verbose=0)[0])


def test_a_layer_that_is_called_twice():
    inputs, shared = keras.Input((2,)), layers.Dense(2, name="shared")
    once = shared(inputs)
    model, x = keras.Model(inputs, shared(once)), RNG.normal(size=(4, 2))
    same(in_order(model, "shared", x, call=0), by_keras(model, once, x))
    same(in_order(model, "shared", x, call=1), model.predict(x, verbose=0))
    for call in (None, 2):
        with pytest.raises(ValueError, match=r"`call`.*from 0 to 1.*calls.*2 times"):
            kp.activations(model, "shared", x, call=call)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = conv_net()
    found = in_order(model, "second", IMAGES)
    keras.config.set_dtype_policy("float32")
    assert found.dtype == "float32"
    exact = conv_net()
    exact.set_weights(model.get_weights())
    expected = by_keras(exact, exact.get_layer("second").output, IMAGES)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert in_order(exact, "second", IMAGES, dtype="float16").dtype == "float16"


def test_features_on_another_axis():
    flip = layers.Permute((3, 1, 2), name="flip")
    model = keras.Sequential([keras.Input((6, 6, 2)), flip])
    same(in_order(model, "flip", IMAGES, axis=1), IMAGES.reshape(-1, 2))


def test_a_quantized_layer():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])
    model.quantize("int8")
    x = RNG.normal(size=(5, 8)).astype("float32")
    same(in_order(model, "dense", x), model.predict(x, verbose=0))


@pytest.mark.parametrize("name", ["words", "states"])
def test_masked_rows_are_dropped(name):
    inputs = keras.Input((4,), dtype="int32")
    words = layers.Embedding(7, 3, mask_zero=True, name="words")(inputs)
    states = layers.Dense(3, name="states")(words)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(states))
    rows = by_keras(model, model.get_layer(name).output, TOKENS)
    expected = rows[TOKENS.reshape(-1) != 0]
    same(in_order(model, name, TOKENS), expected)
    stream = kp.activations(model, name, TOKENS, batch_size=2, drop_remainder=False)
    assert len(stream) == 4  # of 7 rows


def test_some_rows_of_each_sample():
    inputs = keras.Input((4,), dtype="int32")
    words = layers.Embedding(7, 1, mask_zero=True, name="words")
    model = keras.Model(inputs, words(inputs))
    words.set_weights([np.arange(7.0)[:, None]])
    seen = set()
    for seed in range(30):
        rows = in_order(model, "words", TOKENS, rows_per_sample=2, seed=seed)[:, 0]
        assert list(rows[:3]) in ([1, 2, 3], [2, 1, 3])
        assert len(rows) == 5
        assert set(rows[3:]) < {4, 5, 6, 1}
        seen.update(rows[3:])
    assert seen == {4, 5, 6, 1}


@pytest.mark.slow
def test_an_application_and_a_penalised_model_around_it():
    base = keras.applications.MobileNetV2((32, 32, 3), 0.35, False, weights=None)
    inputs = keras.Input((32, 32, 3))
    pooled = layers.GlobalAveragePooling2D()(base(inputs))
    outer = keras.Model(inputs, layers.Dense(3)(pooled))
    outer = kp.penalize(outer, {layers.Dense: "l2(1e-4)"})
    x = RNG.normal(size=(40, 32, 32, 3)).astype("float32")
    for name in ("bn_Conv1", "block_3_project_BN", "out_relu"):
        expected = by_keras(base, base.get_layer(name).output, x)
        same(in_order(base, name, x), expected)
        same(in_order(outer, f"{base.name}/{name}", x), expected)


@pytest.mark.slow
def test_a_stream_for_training_and_one_for_validation():
    """Both read one layer, by turns, and TensorFlow reads them in threads."""
    model = conv_net()
    train, valid = (
        kp.activations(model, "second", x, batch_size=16, buffer_size=64)
        for x in (IMAGES, IMAGES[:9])
    )
    learner = keras.Sequential([keras.Input((5,)), layers.Dense(5)])
    learner.compile(keras.optimizers.Adam(0.01), "mse")
    history = learner.fit(train, validation_data=valid, epochs=10, verbose=0).history
    assert history["val_loss"][-1] < history["val_loss"][0] / 2


# Which datasets


def batches_of(kind, x):
    y = np.zeros(len(x))
    parts = [(x[i : i + 5], y[i : i + 5]) for i in range(0, len(x), 5)]
    if kind == "arrays":
        return x
    if kind == "tensors":
        return ops.convert_to_tensor(x)
    if kind == "generator function":
        return lambda: iter(parts)
    if kind == "another iterable":

        class Batches:
            def __iter__(self):
                return ((*part, np.ones(len(part[0]))) for part in parts)

        return Batches()
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    if kind == "DataLoader":
        data = pytest.importorskip("torch.utils.data")
        torch = sys.modules["torch"]
        pairs = data.TensorDataset(torch.tensor(x), torch.tensor(y))
        return data.DataLoader(pairs, batch_size=5)

    class Parts(keras.utils.PyDataset):
        num_batches = len(parts)

        def __getitem__(self, i):
            return parts[i]

    return Parts()


KINDS = ["arrays", "tensors", "generator function", "another iterable", "PyDataset"]


@pytest.mark.slow_on_tensorflow
@pytest.mark.parametrize("kind", [*KINDS, "tf.data", "DataLoader"])
def test_each_kind_of_dataset(kind):
    model, data = conv_net(), batches_of(kind, IMAGES)
    expected = by_keras(model, model.get_layer("second").output, IMAGES)
    same(in_order(model, "second", data), expected)
    stream = kp.activations(model, "second", data, batch_size=50)
    assert len(stream) == len(expected) // 50
    rows = np.concatenate([x for x, _ in stream])
    again = np.concatenate([x for x, _ in stream])
    assert not np.array_equal(rows, again)


def test_a_dataset_without_an_end():
    model, x = numbered(10)

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, i):
            return x[i % 10 : i % 10 + 1]

    with pytest.raises(ValueError, match=r"`batches_per_epoch`.*has no end"):
        kp.activations(model, "keep", Endless())
    stream = kp.activations(
        model, "keep", Endless(), batch_size=3, buffer_size=0, batches_per_epoch=4
    )
    assert len(stream) == len(list(stream)) == 4
    assert stream.statistics().rows == 12
    found = []
    for _ in range(2):  # an epoch goes on where the last one ended
        stream.on_epoch_begin()
        found += [stream[i] for i in range(4)]
        stream.on_epoch_end()
    np.testing.assert_array_equal(firsts(found), np.arange(24) % 10)


@pytest.mark.parametrize("fit_shuffles", [True, False])
def test_an_epoch_of_fit_has_each_row_once(fit_shuffles):
    """The mean of a function of the rows that no other rows have."""
    model, x = numbered(103)
    zero = layers.Dense(1, kernel_initializer="zeros")
    learner = keras.Sequential([keras.Input((1,)), zero])
    learner.compile(keras.optimizers.SGD(0.0), "mse")
    stream = kp.activations(
        model, "keep", x / 103, batch_size=8, buffer_size=30, drop_remainder=False
    )
    history = learner.fit(stream, epochs=3, shuffle=fit_shuffles, verbose=0)
    expected = np.mean((x / 103) ** 2)
    # The mean over batches weighs the samples alike.
    np.testing.assert_allclose(history.history["loss"], [expected] * 3, rtol=1e-5)
    for _ in range(2):
        loss = learner.evaluate(stream, verbose=0)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_predict_reads_a_pass():
    model, x = numbered(40)
    stream = kp.activations(model, "keep", x, batch_size=6, targets=False)
    other, _ = numbered(1)
    found = other.predict(stream, verbose=0)[:, 0]
    assert len(found) == len(set(found)) == 36


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere the weights stay")
def test_a_model_that_reads_its_own_stream():
    model, x = numbered(40)
    stream = kp.activations(model, "keep", x, batch_size=6, targets=False)
    with pytest.raises(ValueError, match=r"`model`.*Save the stream before"):
        model.predict(stream, verbose=0)


# Batches and the buffer


def test_batches_have_one_size():
    model, x = numbered(50)
    stream = kp.activations(model, "keep", x, batch_size=8, buffer_size=20)
    assert [len(a) for a, b in stream if a is b] == [8] * 6
    stream = kp.activations(model, "keep", x, batch_size=8, drop_remainder=False)
    assert [len(a) for a, _ in stream] == [8] * 6 + [2]
    assert len(stream) == 7


@pytest.mark.parametrize("buffer_size", [1, 5, 8, 13, 64, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_each_row_once_whatever_the_sizes(batch_size, buffer_size):
    model, x = numbered(50)
    stream = kp.activations(
        model,
        "keep",
        x,
        batch_size=batch_size,
        buffer_size=buffer_size,
        drop_remainder=False,
        samples_per_call=16,
    )
    found = firsts(stream)
    np.testing.assert_array_equal(np.sort(found), np.arange(50))
    assert not np.array_equal(found, np.arange(50))


def test_the_seed_says_the_order_and_each_pass_has_its_own():
    model, x = numbered(60)

    def passes(seed):
        stream = kp.activations(
            model, "keep", x, batch_size=8, buffer_size=20, seed=seed
        )
        return [tuple(firsts(stream)) for _ in range(3)]

    assert passes(3) == passes(3)
    assert len({*passes(3), *passes(4)}) == 6
    keras.utils.set_random_seed(1)
    drawn = passes(None)
    assert drawn != passes(None)
    keras.utils.set_random_seed(1)
    assert drawn == passes(None)


def test_the_buffer_mixes_no_further_than_it_reaches():
    model, x = numbered(400)

    def data():  # arrays would be shuffled before
        yield from np.split(x, 100)

    stream = kp.activations(model, "keep", data, batch_size=4, buffer_size=40)
    found = firsts(stream)
    assert found[:40].max() < 80
    assert np.abs(found - np.arange(400)).mean() > 10


@pytest.mark.slow_on_tensorflow
def test_a_dataset_larger_than_the_buffer_is_never_in_memory():
    features, batch, buffer = 2048, 64, 1024
    model, _ = numbered(1, features)

    def data():
        for i in range(100):
            gc.collect()  # on torch each call of a layer leaves its input to it
            yield np.full((64, features), i, "float32")

    stream = kp.activations(
        model, "keep", data, batch_size=batch, buffer_size=buffer, targets=False
    )
    gc.freeze()  # so that to collect is fast
    for _ in itertools.islice(stream, 2):
        pass  # compiled
    tracemalloc.start()
    count = sum(len(x) for (x,) in stream)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    gc.unfreeze()
    assert count == 100 * 64 > 6 * buffer
    rows = peak / (4 * features)
    # The stream has two batches beside the buffer: one enters and one is drawn. The
    # others are the generator's, the model's last input and last two outputs, this
    # loop's, and rows that move.
    assert buffer < rows < buffer + 8 * batch


# Files


def test_rows_on_a_disk(tmp_path):
    model = conv_net()
    stream = kp.activations(
        model, "second", IMAGES, batch_size=10, buffer_size=400, seed=5
    )
    folder = tmp_path / "deep" / "rows"
    stored = stream.save(folder)
    expected = by_keras(model, model.get_layer("second").output, IMAGES)
    files = sorted(folder.iterdir())
    assert len(files) == -(-len(expected) // 100)
    found = np.concatenate([np.load(file, mmap_mode="r") for file in files])
    same(found, expected)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    assert len(stored) == len(stream) == len(expected) // 10
    every = kp.ActivationStream.load(folder, 10, drop_remainder=False, seed=5)
    same(as_sorted(np.concatenate([x for x, _ in every])), as_sorted(expected))
    first, second = (np.concatenate([x for x, _ in stored]) for _ in range(2))
    assert not np.array_equal(first, second)
    assert stored.features == 5
    with pytest.raises(ValueError, match=r"`folder`.*does not exist yet"):
        stream.save(folder)


def test_a_save_that_is_cut_leaves_no_folder(tmp_path):
    model, x = numbered(30)

    def data():
        yield x[:10]
        if broken:
            raise KeyboardInterrupt
        yield x[10:]

    broken = True
    stream = kp.activations(model, "keep", data, batch_size=4, buffer_size=8)
    with pytest.raises(KeyboardInterrupt):
        stream.save(tmp_path / "rows")
    assert not (tmp_path / "rows").exists()
    assert list((tmp_path / "rows.partial").iterdir())
    with pytest.raises(ValueError, match=r"`folder`.*`ActivationStream.save` made"):
        kp.ActivationStream.load(tmp_path / "rows")
    broken = False
    stored = stream.save(tmp_path / "rows")
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]
    assert set(firsts(stored)) < set(range(30))


def test_an_epoch_of_an_endless_dataset_on_a_disk(tmp_path):
    model, x = numbered(10)

    def data():
        yield from itertools.repeat(x)

    stream = kp.activations(
        model, "keep", data, batch_size=4, buffer_size=16, batches_per_epoch=5
    )
    stored = stream.save(tmp_path / "rows")
    assert len(stored) == 5
    found = np.concatenate([np.load(f) for f in sorted((tmp_path / "rows").iterdir())])
    np.testing.assert_array_equal(found[:, 0], np.arange(20) % 10)


def test_half_floats_on_a_disk(tmp_path):
    model, x = numbered(30)
    stream = kp.activations(model, "keep", x, batch_size=4, dtype="float16")
    (x, _), *_ = stream.save(tmp_path / "rows")
    assert x.dtype == "float16"
    np.save(tmp_path / "rows" / "z.npy", np.zeros((3, 1), "float32"))
    with pytest.raises(ValueError, match="rows of one width"):
        kp.ActivationStream.load(tmp_path / "rows")
    np.save(tmp_path / "rows" / "z.npy", np.zeros(3))
    with pytest.raises(ValueError, match="arrays of rank 2"):
        kp.ActivationStream.load(tmp_path / "rows")


# Statistics


def test_statistics():
    model = conv_net()
    stream = kp.activations(model, "first", IMAGES, batch_size=10)
    rows = by_keras(model, model.get_layer("first").output, IMAGES).astype("float64")
    found = stream.statistics()
    same(found.mean, rows.mean(axis=0).astype("float32"))
    norms = np.linalg.norm(found.scale * rows, axis=1)
    np.testing.assert_allclose(norms.mean(), np.sqrt(3), rtol=1e-6)
    assert found.rows == len(rows)
    assert 95 <= stream.statistics(95).rows < 105
    again = kp.activations(model, "first", IMAGES, batch_size=10, seed=stream.seed)
    for (a, _), (b, _) in zip(stream, again, strict=True):  # reads no pass away
        np.testing.assert_array_equal(a, b)


# The model stays as it is


def test_nothing_in_the_model_changes():
    model = kp.penalize(conv_net(), {"kernel": "l2(1e-3)", "second": {"outputs": "l1"}})
    layer = model.get_layer("second")
    before, own = model.get_weights(), dict(vars(layer))
    in_order(model, "second", IMAGES)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert vars(layer) == own
    with pytest.raises(ValueError, match="`call`"):
        kp.activations(model, "second", IMAGES, call=1)
    assert vars(layer) == own


def test_later_weights_are_used():
    model, x = numbered(4)
    stream = kp.activations(model, "keep", x, batch_size=4, buffer_size=0)
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_array_equal(firsts(stream), [0, 2, 4, 6])


# What is refused


@pytest.mark.parametrize(
    ("layer", "data", "kwargs", "message"),
    [
        ("secnd", IMAGES, {}, r"`layer`.*name or address.*Did you mean 'second'"),
        (layers.Dense(2), IMAGES, {}, r"`layer`.*a layer of the model"),
        (3, IMAGES, {}, r"`layer`.*its name"),
        ("second", iter([IMAGES]), {}, r"`dataset`.*only once"),
        ("second", 3, {}, r"`dataset`.*arrays, a `tf.data"),
        ("second", [], {}, r"`dataset`.*at least one batch"),
        ("second", [IMAGES, IMAGES[:3]], {}, r"`dataset`.*as many samples"),
        ("second", IMAGES, {"axis": 4}, r"`axis`.*\(21, 3, 3, 5\)"),
        ("second", IMAGES, {"axis": 0}, r"`axis`.*the batch"),
        ("second", IMAGES, {"batch_size": 0}, r"`batch_size`"),
        ("second", IMAGES, {"buffer_size": -1}, r"`buffer_size`"),
        ("second", IMAGES, {"dtype": "int8"}, r"`dtype`"),
        ("second", IMAGES, {"rows_per_sample": 0}, r"`rows_per_sample`"),
        ("input", IMAGES, {}, r"`layer`.*that the model calls"),
    ],
)
def test_refused(layer, data, kwargs, message):
    model = conv_net()
    layer = model.layers[0].name if layer == "input" else layer
    with pytest.raises(ValueError, match=message):
        kp.activations(model, layer, data, **kwargs)


def test_refused_models():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match=r"`model`.*built"):
        kp.activations(model, model.layers[0], IMAGES)
    with pytest.raises(ValueError, match=r"`model`.*Model"):
        kp.activations(layers.Dense(2), "dense", IMAGES)


def test_refused_outputs():
    inputs = keras.Input((4, 3))
    states = layers.LSTM(2, return_state=True, name="states")
    model = keras.Model(inputs, states(inputs))
    x = np.zeros((2, 4, 3))
    with pytest.raises(ValueError, match=r"`layer`.*one tensor"):
        kp.activations(model, "states", x)
    if BACKEND == "jax":  # other backends may run such a cell in a loop of Python
        with pytest.raises(ValueError, match=r"`layer`.*outside of the loop"):
            kp.activations(model, "states/lstm_cell", x, call=0)


def test_an_address_that_means_several_layers():
    def block(name):
        return keras.Sequential(
            [keras.Input((2,)), layers.Dense(2, name="d")], name=name
        )

    model = keras.Sequential([keras.Input((2,)), block("a"), block("b")])
    with pytest.raises(ValueError, match=r"whole address, one of 'a/d', 'b/d'"):
        kp.activations(model, "d", np.zeros((2, 2)))


def test_too_few_rows_for_a_batch():
    model, x = numbered(5)
    stream = kp.activations(model, "keep", x, batch_size=8)
    with pytest.raises(
        ValueError, match=r"`batch_size`.*at most the rows of a pass, 5"
    ):
        len(stream)
    with pytest.raises(ValueError, match=r"`dataset`.*not all zero"):
        kp.activations(model, "keep", 0 * x).statistics()
