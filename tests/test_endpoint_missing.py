"""AddLoss where something is missing: masks, weights of 0, unknown targets."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_penalties as kp
from keras_penalties.layers import AddLoss

RNG = np.random.default_rng(0)


@kp.register(package="tests")
def squares(y_pred, y_true):
    return ops.square(y_pred - y_true)[..., 0]


@kp.register(package="tests")
def relative(y_pred, y_true):
    return (ops.absolute(y_pred - y_true) / y_true)[..., 0]


@kp.register(package="tests")
def by_sequence(y_pred, y_true, mask):
    """One value for a whole sequence: its mean error, over its real steps."""
    real = ops.cast(mask, y_pred.dtype)
    errors = ops.square(y_pred - y_true)[..., 0] * real
    return ops.sum(errors, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)


def line(loss, masked=False, weighted=False, **kwargs):
    """`y = w·x` over steps, with a loss on it; w starts at 1."""
    x, t, weight = keras.Input((None, 1)), keras.Input((None, 1)), keras.Input(())
    dense = layers.Dense(1, use_bias=False, kernel_initializer="ones", name="line")
    y = dense(layers.Masking()(x) if masked else x)
    more = {"sample_weight": weight} if weighted else {}
    passed = AddLoss(loss, name="l", **kwargs)(y, y_true=t, **more)
    model = keras.Model([x, t, weight] if weighted else [x, t], passed)
    model.compile(keras.optimizers.SGD(1.0))
    return model


def step(model, *data):
    """The loss of a step, and how far w went: the gradient."""
    loss = model.train_on_batch(list(data), return_dict=True)["loss"]
    weight = float(np.ravel(model.get_layer("line").get_weights()[0])[0])
    return float(loss), 1.0 - weight


X = np.array([[[1.0], [2.0]], [[3.0], [0.0]]], "float32")  # the last step is padding


@pytest.mark.parametrize("hole", [np.nan, np.inf, 0.0])
def test_a_masked_step_has_no_part_in_the_value_nor_in_the_gradient(hole):
    y = np.array([[[2.0], [4.0]], [[6.0], [hole]]], "float32")
    loss, slope = step(line(squares, masked=True), X, y)
    assert loss == pytest.approx((1 + 4 + 9) / 3)
    assert slope == pytest.approx((-2 - 8 - 18) / 3)
    loss, slope = step(line(relative, masked=True), X, y)
    assert loss == pytest.approx((1 / 2 + 2 / 4 + 3 / 6) / 3)
    assert slope == pytest.approx((-1 / 2 - 2 / 4 - 3 / 6) / 3)


@pytest.mark.parametrize("loss", [squares, "mean_squared_error"])
def test_a_sample_of_weight_0_has_no_part_in_the_gradient(loss):
    y = np.array([[[2.0], [4.0]], [[np.nan], [np.inf]]], "float32")
    weights = np.array([1.0, 0.0], "float32")
    value, slope = step(line(loss, weighted=True), X, y, weights)
    assert value == pytest.approx((1 + 4) / 4)  # a weight of 0 counts, as in Keras
    assert slope == pytest.approx((-2 - 8) / 4)


@pytest.mark.parametrize("loss", [squares, "mean_squared_error", relative])
@pytest.mark.parametrize("ignore", [-1, "nan", float("nan")])
def test_an_unknown_target_has_no_part(loss, ignore, tmp_path):
    unknown = np.nan if ignore != -1 else -1.0
    y = np.array([[[2.0], [unknown]], [[unknown], [2.0]]], "float32")
    x = X + (X == 0)
    model = line(loss, ignore=ignore)
    value, slope = step(model, x, y)
    assert value == pytest.approx(1.0 if loss is not relative else 0.5)
    assert slope == pytest.approx(-2.0 if loss is not relative else -0.5)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    nothing = np.full_like(y, unknown)
    before = again.get_weights()
    assert again.train_on_batch([x, nothing], return_dict=True)["loss"] == 0.0
    for old, new in zip(before[:1], again.get_weights()[:1], strict=True):
        np.testing.assert_array_equal(old, new)


def test_ignore_needs_targets():
    with pytest.raises(ValueError, match="`ignore`"):
        AddLoss(lambda a, b: a - b, ignore=-1)
    with pytest.raises(ValueError, match="`ignore`"):
        AddLoss("mean_squared_error", ignore="none")


def test_a_function_may_ask_for_the_mask_and_give_one_value_a_sequence():
    y = np.array([[[2.0], [4.0]], [[5.0], [np.nan]]], "float32")
    loss, slope = step(line(by_sequence, masked=True), X, y)
    assert loss == pytest.approx(((1 + 4) / 2 + 4) / 2)
    assert slope == pytest.approx(((-2 - 8) / 2 - 12) / 2)
    # Without a mask all steps are real.
    whole = np.nan_to_num(y)
    loss, _ = step(line(by_sequence), X, whole)
    assert loss == pytest.approx(((1 + 4) / 2 + (4 + 0) / 2) / 2)
    # A sequence without any real step is absent.
    empty = np.concatenate([X, np.zeros((1, 2, 1), "float32")])
    more = np.concatenate([y, np.full((1, 2, 1), 7.0, "float32")])
    loss, _ = step(line(by_sequence, masked=True), empty, more)
    assert loss == pytest.approx(((1 + 4) / 2 + 4) / 2)


SHAPES = [(4,), (4, 1), (4, 4), (4, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["mean_squared_error", "half_sum_squared_error"])
def test_a_weight_lies_on_the_samples_also_where_axes_are_as_long(shape, loss):
    p, y = RNG.normal(size=(2, 4, 4, 3)).astype("float32")
    w = RNG.random(shape).astype("float32")
    errors = (p - y) ** 2
    values = errors.mean(-1) if loss == "mean_squared_error" else errors.sum(-1) / 2
    right = (values * w.reshape((4, -1))).mean()
    layer = AddLoss(loss)
    layer(p, y_true=y, sample_weight=w)
    assert float(sum(layer.losses)) == pytest.approx(float(right), rel=1e-5)


@pytest.mark.parametrize("shape", [(3,), (1, 4), (4, 3), (4, 4, 3)])
def test_another_weight_is_refused_with_the_shapes(shape):
    p = RNG.normal(size=(4, 4, 3)).astype("float32")
    layer = AddLoss("mean_squared_error")
    with pytest.raises(ValueError, match=r"`sample_weight`.*\(4, 4\)"):
        layer(p, y_true=p, sample_weight=np.ones(shape, "float32"))


def test_a_learned_strength_rests_where_nothing_is_known():
    x, t = keras.Input((1,)), keras.Input((1,))
    learned = kp.strengths.Learned(3.0)
    layer = AddLoss("mean_squared_error", learned, ignore="nan", name="task")
    guess = layers.Dense(1, kernel_initializer="zeros", trainable=False)(x)
    model = keras.Model([x, t], layer(guess, y_true=t))
    model.compile(keras.optimizers.Adam(0.1))
    nothing = np.full((8, 1), np.nan, "float32")
    logs = model.fit([np.ones((8, 1)), nothing], epochs=5, verbose=0).history
    assert kp.terms(model)[0].strength == pytest.approx(3.0)
    assert logs["task"] == [0.0] * 5
    model.fit([np.ones((8, 1)), np.full((8, 1), 5.0)], epochs=20, verbose=0)
    assert kp.terms(model)[0].strength < 1.0  # on its way to 1/50


def test_auto_starts_at_the_first_batch_that_has_labels():
    x, t = keras.Input((1,)), keras.Input((1,))
    learned = kp.strengths.Learned("auto")
    layer = AddLoss("mean_squared_error", learned, ignore="nan", name="task")
    guess = layers.Dense(1, kernel_initializer="zeros", trainable=False)(x)
    model = keras.Model([x, t], layer(guess, y_true=t))
    model.compile(keras.optimizers.SGD(0.0))
    y = np.array([[np.nan], [np.nan], [5.0], [5.0], [2.0], [2.0]], "float32")
    logs = model.fit(
        [np.ones((6, 1)), y], batch_size=2, shuffle=False, verbose=0
    ).history
    assert kp.terms(model)[0].strength == pytest.approx(1 / 50)
    # 0, then L / (2L) - log(1/50) / 2, then 4/50 with the same logarithm.
    log = -0.5 * np.log(1 / 50)
    assert logs["task"][0] == pytest.approx(
        (0 + 0.5 + log + 4 / 50 + log) / 3, rel=1e-5
    )
